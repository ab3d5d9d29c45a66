"""Only the terminator is left out of a turn, and its tokens are never guessed."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.core import Draw, Prompt
from selfplay.engines import logprob_scale, openai_answers, sglang_answers
from selfplay.engines.retry import Failure

PROMPT = Prompt("x", (1,), ("<|user|>",), (2,))


def answer(text: str, pieces: list[str], matched: Any, kind: str = "stop") -> dict[str, Any]:
    rows = [[-float(i), 100 + i, piece] for i, piece in enumerate(pieces)]
    if isinstance(matched, int):
        rows[-1][1] = matched
    reason = {"type": kind, "matched": matched} if kind == "stop" else {"type": kind, "length": len(rows)}
    meta = {"finish_reason": reason, "completion_tokens": len(rows), "cached_tokens": 0, "output_token_logprobs": rows}
    return {"text": text, "meta_info": meta}


@pytest.mark.parametrize(
    ("text", "pieces", "matched", "kept"),
    [
        ("hi there", ["hi", " there", "<|im_end|>"], 2, 2),
        ("", ["<|im_end|>"], 2, 0),
        ("hi<|im_start|>", ["hi", "<|im_start|>", "</s>"], 0, 2),
        ("hi\n", ["hi", "\n", "<|", "user", "|>"], "<|user|>", 2),
        ("hi", ["hi", "<|", "user", "|>\n"], "<|user|>", 1),
        ("hi\n", ["hi", "\n<|", "user", "|>"], "<|user|>", None),
        ("hi ", ["hi", "<|user|>"], "<|user|>", None),
        ("", ["<|user|>"], "<|user|>", 0),
        ("é", ["\ufffd", "\ufffd", "<|user|>"], "<|user|>", 2),
        ("<|us", ["<|", "us", "<|", "user", "|>"], "<|user|>", 2),
    ],
)
def test_tokens_of_the_turn(text: str, pieces: list[str], matched: Any, kept: int | None) -> None:
    found = sglang_answers.candidate(
        answer(text, pieces, matched), PROMPT, Draw(1.0, 0, 0), seeded=False, logprobs=True
    )
    assert found.turn == text
    assert found.finish_reason == "stop"
    assert found.completion_tokens == len(pieces)
    if kept is None:
        assert (found.token_ids, found.token_logprobs) == (None, None)
    else:
        assert found.token_ids == tuple(100 + i for i in range(kept))
        assert found.token_logprobs == tuple(-float(i) for i in range(kept))


def test_a_turn_cut_at_the_limit_keeps_all_its_tokens() -> None:
    raw = answer("a b", ["a", " b"], None, "length")
    found = sglang_answers.candidate(raw, PROMPT, Draw(1.0, 0, 0), seeded=False, logprobs=True)
    assert (found.finish_reason, found.token_ids) == ("length", (100, 101))


def test_an_infinite_logprob_leaves_them_unknown() -> None:
    raw = answer("a b", ["a", " b"], None, "length")
    raw["meta_info"]["output_token_logprobs"][1][0] = None
    found = sglang_answers.candidate(raw, PROMPT, Draw(1.0, 0, 0), seeded=False, logprobs=True)
    assert found.token_logprobs is None
    assert found.token_ids == (100, 101)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "text",
                    "meta_info",
                    "finish_reason",
                    "type",
                    "cached_tokens",
                    "output_token_logprobs",
                    "choices",
                    "usage",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_gives_a_candidate_or_a_failure(value: Any) -> None:
    for read in (
        lambda: sglang_answers.candidate(value, PROMPT, Draw(1.0, 0, 0), seeded=False, logprobs=True),
        lambda: openai_answers.completion(value, Draw(1.0, 0, 0), (2,), logprobs=True),
        lambda: openai_answers.chat(value, Draw(1.0, 0, 0)),
        lambda: list(sglang_answers.scores(value, [[1]])),
        lambda: openai_answers.echoed(value, 1, 1),
    ):
        with contextlib.suppress(Failure):
            read()


@given(st.lists(st.floats(-20, 0), min_size=2, max_size=5), st.floats(-0.02, 0.02))
def test_scaling_is_told_from_rounding_or_left_open(top: list[float], noise: float) -> None:
    one = logprob_scale.gap(top)
    assert logprob_scale.unscaled(one, one + noise) is not False
    assert logprob_scale.unscaled(one, 2 * one + noise) is not True
    if one > 0.5:
        assert logprob_scale.unscaled(one, one + noise) is True
        assert logprob_scale.unscaled(one, 2 * one + noise) is False


@pytest.mark.parametrize(
    ("text", "pieces", "ids", "extra", "kept"),
    [
        ("ok", ["ok", "<end>"], [9, 2], {"matched_stop": 2}, 1),
        ("ok", ["ok", "<end>"], [9, 2], {"stop_reason": None}, 1),
        ("ok", ["ok", "<eos>"], [9, 0], {"stop_reason": None}, 1),
        ("ok", ["ok", "<|", "user|>"], [9, 4, 5], {"stop_reason": "<|user|>"}, 1),
        ("ok", ["ok<|", "user|>"], [9, 5], {"matched_stop": "<|user|>"}, None),
        ("", ["<end>"], [2], {"matched_stop": 2}, 0),
        ("ok", None, [9, 7], {"stop_reason": "x"}, None),
    ],
)
def test_tokens_of_a_completion(
    text: str, pieces: Any, ids: list[int], extra: dict[str, Any], kept: int | None
) -> None:
    logprobs = pieces and {"tokens": pieces, "token_logprobs": [-float(i) for i in range(len(pieces))]}
    choice = {"text": text, "finish_reason": "stop", "token_ids": ids, "logprobs": logprobs, **extra}
    found = openai_answers.completion({"choices": [choice]}, Draw(1.0, 0, 0), (2,), logprobs=True)
    assert found.turn == text
    assert found.token_ids == (None if kept is None else tuple(ids[:kept]))
    assert found.token_logprobs == (None if kept is None else tuple(-float(i) for i in range(kept)))
