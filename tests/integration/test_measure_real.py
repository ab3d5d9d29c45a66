"""Signals of written turns with the real SmolLM2-135M and MiniLM, against a computation that shares nothing."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("sentence_transformers")

torch.set_num_threads(1)

import filters  # noqa: E402
from selfplay.signals.embedding import load_embedder  # noqa: E402
from selfplay.signals.measure import default_scorer, measure, mismatches, signal_versions  # noqa: E402

pytestmark = pytest.mark.integration

JUDGED = Path(filters.__file__).parent / "judged"
CONTEXT = "a-001"
TURNS = {
    "reaction": "But if the slower train leaves at 9:30, do they still meet 240 km from the fast one's station?",
    "elsewhere": "Can you write a short poem about my cat and her love of cardboard boxes?",
    "assistant": "Sure! Here is the solution: the two trains meet at 12:00. Let me know if you need anything else.",
    "blank": " ",
}


@pytest.fixture(scope="module")
def messages():
    contexts = map(json.loads, (JUDGED / "contexts.jsonl").open(encoding="utf-8"))
    return next(context["messages"] for context in contexts if context["id"] == CONTEXT)


@pytest.fixture(scope="module")
def scorer():
    engine, template = default_scorer()
    yield engine, template
    engine.close()


@pytest.fixture(scope="module")
def measured(messages, scorer):
    table = pl.DataFrame({"name": list(TURNS), "turn": list(TURNS.values()), "messages": json.dumps(messages)})
    engine, template = scorer
    found = measure(table, {"embedding", "likelihood"}, embedder=load_embedder(), scorer=engine, template=template)
    return {row["name"]: row for row in found.iter_rows(named=True)}


def naive(model, tokenizer, prefix, turn):
    """Token logprobs by one full forward pass over prefix and turn."""
    head = tokenizer(prefix, add_special_tokens=False).input_ids
    tail = tokenizer(turn, add_special_tokens=False).input_ids
    with torch.inference_mode():
        logprobs = model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
    return np.array([float(logprobs[len(head) + i - 1, token]) for i, token in enumerate(tail)])


def test_likelihoods_equal_a_full_forward_pass(messages, measured):
    from selfplay.models import resolve

    place = resolve("smollm2-135m")
    model = transformers.AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    question = f"{system}<|im_start|>user\n{messages[0]['content']}<|im_end|>\n<|im_start|>assistant\n"
    answered = f"{question}{messages[1]['content']}<|im_end|>\n"
    turn = TURNS["reaction"]
    first, second, third, fourth = (
        naive(model, tokenizer, prefix, turn)
        for prefix in (
            f"{answered}<|im_start|>user\n",
            f"{question}<|im_end|>\n<|im_start|>user\n",
            f"{answered}<|im_start|>assistant\n",
            "<|im_start|>user\n",
        )
    )
    row = measured["reaction"]
    expected = {
        "answer_pmi": (first - second).mean(),
        "answer_pmi_sum": (first - second).sum(),
        "role_ratio": (first - third).mean(),
        "copy_gain": (first - fourth).mean(),
        "fluency": fourth.mean(),
        "mean_logprob": first.mean(),
        "min_logprob": first.min(),
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-3)


def test_signals_order_the_turns_as_they_should(measured):
    reaction, elsewhere, assistant = (measured[name] for name in ("reaction", "elsewhere", "assistant"))
    assert reaction["answer_pmi"] > elsewhere["answer_pmi"] + 0.3
    assert reaction["role_ratio"] > assistant["role_ratio"]
    assert reaction["cos_answer_best"] > elsewhere["cos_answer_best"] + 0.2
    assert reaction["copy_gain"] > elsewhere["copy_gain"]


def test_a_blank_turn_has_no_signal(measured):
    assert [value for name, value in measured["blank"].items() if name not in ("name", "turn", "messages")] == [
        None
    ] * 12


def test_the_shipped_weights_were_learned_with_these_models(scorer):
    import rerank

    versions = signal_versions(load_embedder(), scorer[1])
    assert mismatches(versions, rerank.load_weights().measured_with) == {}
