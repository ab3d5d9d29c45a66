"""Which user turns are judged, that each is judged in its own context, and what a policy makes of the verdicts."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import filters
from filters.text.context import HISTORY_LIMIT
from selfplay.cleaning.policy import BAD, Policy, decide
from selfplay.cleaning.turns import How, judged, opened, tables
from selfplay.core import Message
from selfplay.keeping import keeping
from selfplay.tables import context_columns

TEXT = How("text", (), False)


def said(*contents: str, start: str = "user") -> list[Message]:
    roles = ["user", "assistant"] if start == "user" else ["assistant", "user"]
    return [{"role": roles[place % 2], "content": content} for place, content in enumerate(contents)]


BASIL = said(
    "How do I keep basil alive in winter?",
    "Basil needs six hours of light, so add a small lamp 15 cm above the leaves and water when the soil is dry.",
    "15 cm seems close, won't a lamp that near scorch the leaves?",
    "An LED lamp stays cool; if leaves curl, raise it to 25 cm.",
    "Which lamp? <|im_end|>",
    "Any LED lamp of about 10 watts.",
    "How do I keep basil alive in winter?",
)


def test_user_messages_right_after_an_assistants_text_are_judged() -> None:
    messages: list[Message] = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "judged"},
        {"role": "user", "content": "goes on"},
        {"role": "assistant", "content": " ", "tool_calls": [{}]},
        {"role": "user", "content": "after a bare call"},
        {"role": "assistant", "content": "c"},
        {"role": "tool", "content": "d"},
        {"role": "user", "content": "after a tool"},
        {"role": "assistant", "content": "e"},
        {"role": "user", "content": "judged"},
    ]
    assert judged(messages) == [3, 11]
    table = pl.concat(tables([messages]))
    assert table["turn"].to_list() == ["judged", "judged"]
    assert table["answer"].to_list() == ["b", "e"]
    assert table["history"].to_list() == [["a"], ["a", "judged", "goes on", "after a bare call", "after a tool"]]
    assert table["exchanges"].to_list() == [1, 3]


def test_an_assistant_that_opens_is_no_exchange() -> None:
    table = pl.concat(tables([said("Hi!", "I have a question", "Yes?", "How?", start="assistant")]))
    assert table.select("index", "exchanges", "query").rows() == [(1, 0, None), (3, 1, "I have a question")]


def by_itself(messages: list[Message]) -> pl.DataFrame:
    """Each turn with the whole of its context, as `selfplay filter` would see it."""
    rows = [{**context_columns(messages[:place]), "turn": messages[place]["content"]} for place in judged(messages)]
    return filters.label(pl.DataFrame(rows), only="text")


def test_a_turn_is_judged_as_if_it_stood_alone_behind_its_context() -> None:
    with opened(TEXT) as judge:
        _, turns = judge([BASIL, said("Hello", "Hi, what can I do?", "ok"), BASIL])
    columns = ["label", "genuine", "p_genuine", "rule", "evidence", "rule_set"]
    assert turns.filter(pl.col("conversation") == 0).select(columns).equals(by_itself(BASIL).select(columns))
    assert turns["conversation"].to_list() == [0, 0, 0, 1, 2, 2, 2]
    assert turns["label"].to_list()[:3] == ["follow_up", "malformed", "prompt_restatement"]


def test_long_conversations_cost_what_their_length_says_and_are_judged_the_same() -> None:
    topics = ["ferry", "basil", "lamp", "bread", "train", "violin", "contract"]
    contents = [
        f"What about the {topics[place % 7]} number {place}?"
        if place % 2 == 0
        else f"Item {place} costs {place * 3} euros."
        for place in range(201)
    ]
    contents[120] = contents[0]  # a repeat of the first message, which is never forgotten
    messages = said(*contents)
    table = pl.concat(tables([messages]))
    assert len(table) == 100
    assert table["history"].list.len().max() == HISTORY_LIMIT
    with opened(TEXT) as judge:
        _, turns = judge([messages])
    alone = by_itself(messages)
    assert turns["label"].to_list() == alone["label"].to_list()
    assert turns["p_genuine"].to_list() == pytest.approx(alone["p_genuine"].to_list())


def test_one_huge_conversation_is_judged_in_tables_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfplay.cleaning.turns.TABLE_CHARS", 1000)
    sizes = [len(table) for table in tables([said(*["word " * 20] * 41)])]
    assert len(sizes) > 5
    assert sum(sizes) == 20


def test_nothing_to_judge_is_no_mistake() -> None:
    with opened(How("text", (), True)) as judge:
        whole, turns = judge([said("Hi", "Hello!")])
    assert whole["turns"].to_list() == [0]
    assert len(turns) == 0


def turn(index: int, bad: bool, exchanges: int | None = None) -> dict[str, Any]:
    return {
        "index": index,
        "bad": bad,
        "label": "malformed",
        "exchanges": index // 2 if exchanges is None else exchanges,
    }


SIX = said("q", "a", "q2", "a2", "q3", "a3")


@pytest.mark.parametrize(
    ("on_bad", "turns", "end", "dropped"),
    [
        ("flag", [turn(2, True)], 6, None),
        ("drop-conversation", [turn(2, False), turn(4, True)], 6, "bad turn: message 4 is malformed"),
        ("drop-conversation", [turn(2, False), turn(4, False)], 6, None),
        ("cut", [turn(2, False), turn(4, True)], 4, None),
        ("cut", [turn(2, True), turn(4, False)], 2, None),
        ("replace", [turn(2, True), turn(4, False)], 2, None),
        (
            "cut",
            [turn(2, True, 0)],
            6,
            "nothing left: message 2 is malformed, and no user message before it was answered",
        ),
        ("cut", [], 6, None),
    ],
)
def test_policies(on_bad: Any, turns: list[dict[str, Any]], end: int, dropped: str | None) -> None:
    outcome = decide(Policy(on_bad), SIX, turns)
    assert (outcome.end, outcome.dropped_for) == (end, dropped)


def test_a_replacement_saves_what_a_cut_would_drop() -> None:
    outcome = decide(Policy("replace"), SIX, [turn(2, True, 0)], {"turn": "better"})
    assert (outcome.end, outcome.dropped_for, outcome.replacement) == (2, None, {"turn": "better"})


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.sampled_from(["cut", "drop-conversation", "replace"]))
@settings(max_examples=60, deadline=None)
def test_what_stays_has_no_bad_turn_and_ends_with_the_assistant(bad: list[bool], on_bad: Any) -> None:
    messages = said(*[str(place) for place in range(2 * len(bad) + 2)])
    turns = [turn(2 + 2 * place, each) for place, each in enumerate(bad)]
    outcome = decide(Policy(on_bad), messages, turns)
    if outcome.dropped_for is None:
        assert not any(each["bad"] for each in turns if each["index"] < outcome.end)
        assert messages[outcome.end - 1]["role"] == "assistant"
        # It is the longest that may stay.
        assert outcome.end == len(messages) or turns[outcome.end // 2 - 1]["bad"]


def test_marks_follow_labels_and_probability() -> None:
    table = pl.DataFrame({"label": ["malformed", "generic", "follow_up"], "p_genuine": [0.0, 0.3, 0.1]})
    assert Policy().marked(table)["bad"].to_list() == [True, False, False]
    assert Policy(good=keeping(drop=BAD, above=0.2)).marked(table)["bad"].to_list() == [True, False, True]
    assert json.loads(json.dumps(Policy().as_json()))["bad"] == ["malformed"]
