"""How a judge's answer is read: a label, or a recorded failure; nothing is guessed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.judge.verdict import SIDES, Verdict, read_choice, read_preference, read_text

CODE = "a1b2c3"
GOOD: dict[str, Any] = {"check": CODE, "reason": "It asks\n about 8.", "label": "follow_up", "groundedness": 3}


def answer(content: Any, finish: str = "stop", **more: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": content, **more}, "finish_reason": finish}


@pytest.mark.parametrize(
    "text",
    [json.dumps(GOOD), f"```json\n{json.dumps(GOOD)}\n```", f"<think>\nfollow_up?\n</think>\n{json.dumps(GOOD)}\n"],
)
def test_a_valid_answer(text: str) -> None:
    assert read_choice(answer(text), CODE) == Verdict("follow_up", 3, "It asks about 8.", None)


INVALID = {
    "not JSON": ["follow_up", json.dumps(GOOD)[:-1], f"Sure: {json.dumps(GOOD)}", json.dumps(GOOD) * 2,
                 '{"check": "a1b2c3", "label": "generic", ' + json.dumps(GOOD)[1:]],
    "not of the schema": ["[]", "3", "{}", json.dumps({**GOOD, "extra": 1}),
                          json.dumps({key: GOOD[key] for key in ("check", "label", "groundedness")})],
    "without this request's check code": [json.dumps({**GOOD, "check": other}) for other in ("000000", "", None, 3)],
    "unknown label": [json.dumps({**GOOD, "label": other}) for other in ("Follow_up", "genuine", None, ["follow_up"])],
    "groundedness is not": [json.dumps({**GOOD, "groundedness": other}) for other in (4, -1, 3.0, True, "3", None)],
    "the reason is not text": [json.dumps({**GOOD, "reason": None})],
    "against the rubric": [json.dumps({**GOOD, "groundedness": 0})],
}  # fmt: skip


@pytest.mark.parametrize(("what", "text"), [(what, text) for what, texts in INVALID.items() for text in texts])
def test_an_invalid_answer_is_recorded_with_its_head(what: str, text: str) -> None:
    verdict = read_choice(answer(text), CODE)
    assert (verdict.label, verdict.groundedness, verdict.reason) == (None, None, None)
    assert verdict.error is not None
    assert verdict.error.startswith(what)
    assert text[:10].split('"')[0] in verdict.error


@pytest.mark.parametrize(
    ("choice", "what"),
    [
        (answer(json.dumps(GOOD), "length"), "cut at the token limit"),
        (answer(None, refusal="I will not"), "refused: I will not"),
        (answer(json.dumps(GOOD), "content_filter"), "refused by a content filter"),
        (answer(None), "empty answer"),
        (answer(" "), "empty answer"),
        (answer([{"type": "text"}]), "empty answer"),
        ({"text": "x"}, "no message"),
        (None, "no message"),
    ],
)
def test_refused_cut_or_empty_is_never_a_label(choice: Any, what: str) -> None:
    verdict = read_choice(choice, CODE)
    assert verdict.label is None
    assert verdict.error is not None
    assert verdict.error.startswith(what)


@given(st.text(max_size=200))
def test_an_answer_copied_from_the_turn_lacks_the_code(text: str) -> None:
    assert read_text(text, CODE).label is None


@given(
    st.dictionaries(st.sampled_from(sorted(GOOD)), st.one_of(st.none(), st.integers(), st.text(), st.lists(st.none())))
)
def test_whatever_json_comes_it_is_a_verdict(value: dict[str, Any]) -> None:
    verdict = read_text(json.dumps({**GOOD, **value}), CODE)
    assert (verdict.error is None) == (verdict.label is not None)
    assert "\n" not in (verdict.error or verdict.reason or "")


PREFERENCE: dict[str, Any] = {"check": CODE, "reason": "It asks\n about 8.", "better": "second"}


@pytest.mark.parametrize("side", SIDES)
def test_a_valid_preference(side: str) -> None:
    verdict = read_choice(answer(json.dumps({**PREFERENCE, "better": side})), CODE, read_preference)
    assert verdict == Verdict(reason="It asks about 8.", better=side)
    assert verdict.said == side


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("not JSON", "second"),
        ("not of the schema", json.dumps(GOOD)),
        ("not of the schema", json.dumps({**PREFERENCE, "label": "follow_up"})),
        ("without this request's check code", json.dumps({**PREFERENCE, "check": "000000"})),
        *(("better is none of", json.dumps({**PREFERENCE, "better": side})) for side in ("Second", None, 2, ["first"])),
        ("the reason is not text", json.dumps({**PREFERENCE, "reason": None})),
    ],
)
def test_an_invalid_preference_is_recorded(what: str, text: str) -> None:
    verdict = read_choice(answer(text), CODE, read_preference)
    assert verdict.said is None
    assert verdict.error is not None
    assert verdict.error.startswith(what)
