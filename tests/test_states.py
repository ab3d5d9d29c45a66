"""The state of a turn: what transformers shows after a layer, whatever way it is come by."""

import threading
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

torch.set_num_threads(1)

from selfplay.core import Draw, Prompt, Sampling  # noqa: E402
from selfplay.engines.base import Reader, SampleRequest, ScoreRequest  # noqa: E402
from selfplay.engines.states import RunningMean, caught  # noqa: E402
from selfplay.engines.transformers import TransformersEngine  # noqa: E402
from selfplay.errors import EngineError  # noqa: E402
from tests.toy_tokenizer import toy_tokenizer  # noqa: E402

LAYERS, END = 4, 257  # </s> of the toy tokenizer
TINY = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512,
    "initializer_range": 0.3, "bos_token_id": 256, "eos_token_id": END, "pad_token_id": 0,
}  # fmt: skip
FAMILIES = {
    "LlamaConfig": {},
    "MistralConfig": {"sliding_window": 8},
    "MambaConfig": {"state_size": 4, "expand": 2, "conv_kernel": 3},
}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    place: Path = tmp_path_factory.mktemp(request.param)
    toy_tokenizer(place, "", generation="</s>")
    torch.manual_seed(0)
    config = getattr(transformers, request.param)(**TINY | FAMILIES[request.param])
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(place)
    return str(place)


@pytest.fixture(scope="module")
def plain(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def engine(folder):
    return TransformersEngine(folder, page_tokens=16)


def ids(seed, length):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(3, 250, (length,), generator=generator).tolist())


def expected(model, prefix, turn, layer):
    with torch.inference_mode():
        found = model(torch.tensor([[*prefix, *turn]]), output_hidden_states=True).hidden_states
    place = layer - 1 if model.config.model_type == "mamba" else layer  # it does not show the embeddings
    return found[place][0, len(prefix) :].mean(0).numpy()


LONG = ids(1, 50)
WORK = [
    ScoreRequest(LONG, (ids(2, 5), (), ids(3, 1), ids(4, 30))),
    ScoreRequest((*LONG[:40], 9, 8), (ids(2, 5), ids(5, 3))),
    ScoreRequest((7,), (ids(6, 4),)),
    ScoreRequest(LONG, ()),
]


@pytest.mark.parametrize("layer", [1, 3])
def test_states_are_those_of_the_plain_model(engine, plain, layer):
    assert isinstance(engine, Reader)
    for request, readings in zip(WORK, engine.read(WORK, layer), strict=True):
        assert len(readings) == len(request.continuations)
        for turn, reading in zip(request.continuations, readings, strict=True):
            if not turn:
                assert reading.state is None
                continue
            assert reading.state.dtype == np.float32
            np.testing.assert_allclose(reading.state, expected(plain, request.prefix, turn, layer), atol=1e-4)


def test_reading_scores_as_scoring_does_and_work_over_the_budget_is_read_whole(engine, folder):
    scores = engine.score(WORK)
    small = TransformersEngine(folder, page_tokens=16, score_tokens=40)
    for by in (engine, small):
        found = by.read(WORK, 2)
        assert [[len(r.logprobs) for r in each] for each in found] == [[len(s) for s in each] for each in scores]
        for readings, again, whole in zip(found, scores, engine.read(WORK, 2), strict=True):
            for reading, logprobs, other in zip(readings, again, whole, strict=True):
                assert reading.logprobs == pytest.approx(logprobs, abs=1e-4)
                if logprobs:
                    np.testing.assert_allclose(reading.state, other.state, atol=1e-4)


def test_a_layer_that_is_not_there_is_refused(engine, folder):
    for layer in (0, LAYERS + 1):
        with pytest.raises(EngineError, match=f"layers 1 to {LAYERS}"):
            engine.read(WORK, layer)
    with pytest.raises(EngineError, match=f"layer {LAYERS + 1}"):
        TransformersEngine(folder, state_layer=LAYERS + 1)


def drawn(engine, most, **stops):
    work = [
        SampleRequest(
            str(number),
            Prompt("", prefix, tuple(stops.get("stop", ())), (END, *range(0, 250, 9))),  # turns of many lengths
            tuple(Draw(t, place, 10 * number + place) for place, t in enumerate((0.0, 1.0, 1.5, 1.5, 1.5))),
        )
        for number, prefix in enumerate((LONG, (*LONG[:40], 9, 8), ids(6, 4)))
    ]
    results = {found.key: found for found in engine.sample(work, Sampling(max_tokens=most))}
    assert [found.error for found in results.values() if found.error] == []
    return [(request.prompt.token_ids, one) for request in work for one in results[request.key].candidates]


def test_sampling_gathers_the_states_that_reading_finds(folder, plain):
    engine = TransformersEngine(folder, page_tokens=16, state_layer=2, state_tokens=6)
    lengths = set()
    for prefix, candidate in drawn(engine, 12):
        turn = candidate.token_ids
        if not turn:
            assert candidate.state is None
            continue
        lengths.add((len(turn) > 6, candidate.finish_reason))
        np.testing.assert_allclose(candidate.state, expected(plain, prefix, turn[:6], 2), atol=1e-4)
    assert {(False, "stop"), (True, "stop")} <= lengths


def test_sampling_knows_no_state_where_a_token_was_never_read(folder, plain):
    engine = TransformersEngine(folder, page_tokens=16, state_layer=2, state_tokens=20)
    found = drawn(engine, 7)
    assert {one.finish_reason for _, one in found} == {"stop", "length"}
    for _, one in found:
        assert (one.state is None) == (one.finish_reason == "length" or not one.token_ids)
    assert all(one.state is None for _, one in drawn(TransformersEngine(folder, page_tokens=16), 7))


def test_what_is_drawn_does_not_depend_on_gathering(folder):
    one, other = (drawn(TransformersEngine(folder, page_tokens=16, state_layer=layer), 9) for layer in (None, 2))
    assert one == other


def test_a_stop_string_leaves_no_state_of_what_comes_after_it(folder, plain):
    engine = TransformersEngine(folder, page_tokens=16, state_layer=2)
    whole = max((one for _, one in drawn(engine, 12)), key=lambda one: len(one.token_ids))
    stop = whole.turn[4:6]
    cut = 0
    for prefix, one in drawn(engine, 12, stop=(stop,)):
        cut += one.turn != "" and one.state is None
        if one.state is not None:
            np.testing.assert_allclose(one.state, expected(plain, prefix, one.token_ids, 2), atol=1e-4)
    assert cut


def test_another_threads_passes_are_not_caught(plain):
    prompt = torch.tensor([LONG])
    with caught(plain, 2) as mine:
        other = threading.Thread(target=plain, args=(prompt[:, :7],))
        other.start()
        other.join()
        with torch.inference_mode():
            plain(prompt)
    assert [found.shape[1] for found in mine] == [len(LONG)]
    plain(prompt)
    assert len(mine) == 1, "nothing is caught after the block"


def test_a_running_mean_counts_only_what_belongs_to_a_turn():
    means = RunningMean(3, most=2)
    every, last = torch.tensor([0, 1, 2]), torch.tensor([2])
    means.add(torch.tensor([[1.0], [2.0], [3.0]]), every, torch.tensor([True, True, True]))
    means.add(torch.tensor([[9.0], [4.0], [5.0]]), every, torch.tensor([False, True, True]))
    means.add(torch.tensor([[7.0]]), last, torch.tensor([True]))  # its third token
    assert [float(means.of(row, length)[0]) for row, length in ((0, 1), (1, 2), (2, 3))] == [1.0, 3.0, 4.0]
    assert [means.of(0, 2), means.of(1, 1), means.of(0, 0)] == [None, None, None]
