"""The rows people train on."""

from __future__ import annotations

from typing import Any

from selfplay.core import Conversation, Origin, Prompt, Site
from selfplay.dataset import chosen_row, flip
from selfplay.engines.base import SampleRequest
from selfplay.tables import context_columns, sites_table

MESSAGES = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Look it up."},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "find", "arguments": "{}"}}]},
    {"role": "tool", "content": "42", "tool_call_id": "x"},
    {"role": "assistant", "content": "It is 42."},
    {"role": "user", "content": "why?"},
)
TURN = {
    "turn": "42 of what?", "model": "m", "primed": False, "temperature": 1.0, "sample": 3, "seed": 9,
    "label": "follow_up", "p_genuine": 0.7, "groundedness": 0.8,
}  # fmt: skip


def site_row(extra: dict[str, Any]) -> dict[str, Any]:
    site = Site(0, Conversation("c", MESSAGES, Origin("f", 1), extra), 5)
    return sites_table([(site, SampleRequest(site.site_id, Prompt("", (1, 2)), ()))]).row(0, named=True)


def test_chosen_row_extends_the_conversation_and_flips_the_roles() -> None:
    row = chosen_row(site_row({"lang": "en", "nested": {"a": [1, None]}}), TURN)
    assert row["messages"] == [*MESSAGES[:5], {"role": "user", "content": "42 of what?"}]
    assert row["prompt"] == [{"role": "assistant", "content": "Look it up."}, {"role": "user", "content": "It is 42."}]
    assert row["completion"] == [{"role": "assistant", "content": "42 of what?"}]
    assert row["reference"] == "why?"
    assert (row["lang"], row["nested"]) == ("en", {"a": [1, None]})


def test_unknown_columns_never_overwrite_ours_nor_each_other() -> None:
    row = chosen_row(site_row({"label": "theirs", "input_label": "also theirs", "prompt": "p"}), TURN)
    assert row["label"] == "follow_up"
    assert {"theirs", "also theirs"} == {row[key] for key in row if key.endswith("input_label")}
    assert row["input_prompt"] == "p"


def test_what_a_user_never_sees_is_not_in_the_flipped_prompt() -> None:
    assert [message["role"] for message in flip(MESSAGES)] == ["assistant", "user", "assistant"]


def test_context_of_an_assistant_that_spoke_first() -> None:
    found = context_columns([{"role": "assistant", "content": "Hello!"}])
    assert found == {"query": None, "answer": "Hello!", "history": []}
