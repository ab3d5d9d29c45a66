"""States of written turns with the real SmolLM2-135M, against transformers' own hidden states."""

import json

import numpy as np
import polars as pl
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

torch.set_num_threads(1)

from selfplay.core import Draw, Sampling  # noqa: E402
from selfplay.engines.base import SampleRequest  # noqa: E402
from selfplay.engines.transformers import TransformersEngine  # noqa: E402
from selfplay.prompting.templates import ChatTemplate  # noqa: E402
from selfplay.prompting.tokenizer import load_tokenizer  # noqa: E402
from selfplay.signals.likelihood import MAX_TOKENS  # noqa: E402
from selfplay.signals.measure import measure  # noqa: E402

pytestmark = pytest.mark.integration

LAYER, SHOWN = 20, 1e-4
MESSAGES = [
    {"role": "user", "content": "How do I keep basil alive on a windowsill?"},
    {"role": "assistant", "content": "Give it light, water it when the soil is dry, and pinch off the flowers. " * 9},
]
TURNS = ["What if the window faces north?", "Thanks!", "Sure! Here is how to keep basil alive. " * 30, " "]


@pytest.fixture(scope="module")
def plain(smollm2):
    return transformers.AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()


def expected(model, prefix, turn):
    with torch.inference_mode():
        states = model(torch.tensor([[*prefix, *turn]]), output_hidden_states=True).hidden_states
    return states[LAYER][0, len(prefix) :].double().mean(0).numpy()


def close(found, wanted):
    # A few hidden units are in the hundreds, where float32 has no four decimal places.
    np.testing.assert_allclose(np.asarray(found), wanted, atol=SHOWN, rtol=1e-5)


def test_states_are_those_of_transformers(smollm2, plain):
    template = ChatTemplate(load_tokenizer(smollm2))
    engine = TransformersEngine(smollm2)
    table = pl.DataFrame({"turn": TURNS, "messages": json.dumps(MESSAGES)})
    both = measure(table, {"state", "likelihood"}, scorer=engine, template=template, layer=LAYER)
    alone = measure(table, {"state"}, scorer=engine, template=template, layer=LAYER)
    prefix = template.user_prompt(MESSAGES).token_ids
    assert both["turn_state"].is_null().to_list() == alone["turn_state"].is_null().to_list() == [False] * 3 + [True]
    for turn, state, again in zip(TURNS[:3], both["turn_state"], alone["turn_state"], strict=False):
        wanted = expected(plain, prefix, template.tokenizer.encode(turn, special=False)[:MAX_TOKENS])
        assert len(state) == 576
        close(state, wanted)
        close(again, wanted)


def test_the_sampler_gathers_the_same(smollm2, plain):
    template = ChatTemplate(load_tokenizer(smollm2))
    engine = TransformersEngine(smollm2, state_layer=LAYER, state_tokens=MAX_TOKENS)
    prompt = template.user_prompt(MESSAGES)
    request = SampleRequest("one", prompt, tuple(Draw(1.0, place, 40 + place) for place in range(6)))
    (result,) = engine.sample([request], Sampling(max_tokens=40))
    told = [candidate for candidate in result.candidates if candidate.finish_reason == "stop"]
    assert told, "no turn ended; take other seeds"
    for candidate in result.candidates:
        assert (candidate.state is None) == (candidate.finish_reason == "length" or not candidate.token_ids)
    for candidate in told:
        close(candidate.state, expected(plain, prompt.token_ids, candidate.token_ids))
