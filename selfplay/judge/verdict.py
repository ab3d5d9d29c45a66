"""What a judge answers: the schema it is held to, and how an answer is read. Nothing is ever guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from filters.labels import PRECEDENCE, Label
from selfplay.terminal import one_line

HEAD_CHARS = 160
"""How much of an answer that is not valid is kept."""
REASON_CHARS = 400

GRADES = (0, 1, 2, 3)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "check": {"type": "string"},
        "reason": {"type": "string"},
        "label": {"type": "string", "enum": [label.value for label in PRECEDENCE]},
        "groundedness": {"type": "integer", "enum": list(GRADES)},
    },
    "required": ["check", "reason", "label", "groundedness"],
    "additionalProperties": False,
}
"""`reason` stands before `label`, so that the label follows from it. Only what strict mode takes everywhere."""

SIDES = ("first", "equal", "second")

PAIR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "check": {"type": "string"},
        "reason": {"type": "string"},
        "better": {"type": "string", "enum": list(SIDES)},
    },
    "required": ["check", "reason", "better"],
    "additionalProperties": False,
}
"""Of two turns which is the better one."""

THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
CODE_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's decision; or `error`, and then the rest is None.

    Attributes:
        better: Of two turns, one of `SIDES`; about one turn there are `label` and `groundedness` instead.
    """

    label: str | None = None
    groundedness: int | None = None
    reason: str | None = None
    error: str | None = None
    better: str | None = None

    @property
    def said(self) -> str | None:
        """What was decided, in one word; None if nothing was."""
        return self.label if self.better is None else self.better


def invalid(what: str, raw: str | None = None) -> Verdict:
    """A recorded failure to decide, with the head of what was answered."""
    return Verdict(error=f"{what}: {one_line(raw[: 4 * HEAD_CHARS], HEAD_CHARS)}" if raw else what)


def read_choice(choice: Any, check: str, read: Callable[[str, str], Verdict] | None = None) -> Verdict:
    """The verdict in one choice of a chat completion.

    Args:
        check: The request's check code (see `fence`), which the answer must repeat.
        read: Makes a verdict of the answer's text and the check code; `read_text` if None.
    """
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return invalid("no message in the answer", str(choice))
    content, finish = message.get("content"), choice.get("finish_reason")
    if message.get("refusal"):
        return invalid("refused", str(message["refusal"]))
    if finish == "content_filter":
        return invalid("refused by a content filter", content if isinstance(content, str) else None)
    if finish == "length":
        return invalid("cut at the token limit", content if isinstance(content, str) else None)
    if not isinstance(content, str) or not content.strip():
        return invalid("empty answer")
    return (read or read_text)(content, check)


def read_text(content: str, check: str) -> Verdict:
    """The verdict on one turn in the text of an answer: one JSON object as in `SCHEMA`, and nothing else."""
    value = _answer(content, check, SCHEMA)
    if isinstance(value, Verdict):
        return value
    label, grade = value["label"], value["groundedness"]
    if not isinstance(label, str) or label not in list(Label):
        return invalid("unknown label", content)
    if type(grade) is not int or grade not in GRADES:
        return invalid("groundedness is not 0, 1, 2 or 3", content)
    if not isinstance(value["reason"], str):
        return invalid("the reason is not text", content)
    if label == Label.FOLLOW_UP and grade == 0:
        return invalid("against the rubric: a follow_up without a tie to the answer", content)
    return Verdict(label, grade, _short(value["reason"]))


def read_preference(content: str, check: str) -> Verdict:
    """The verdict on two turns in the text of an answer: one JSON object as in `PAIR_SCHEMA`, and nothing else."""
    value = _answer(content, check, PAIR_SCHEMA)
    if isinstance(value, Verdict):
        return value
    if not isinstance(value["better"], str) or value["better"] not in SIDES:
        return invalid(f"better is none of {', '.join(SIDES)}", content)
    if not isinstance(value["reason"], str):
        return invalid("the reason is not text", content)
    return Verdict(reason=_short(value["reason"]), better=value["better"])


def _answer(content: str, check: str, schema: dict[str, Any]) -> dict[str, Any] | Verdict:
    """The object in an answer's text, with the keys of `schema` and the check code; else what is wrong with it.

    A leading `<think>` block and a code fence around the object are taken off, since servers without structured
    output leave them there.
    """
    text = THOUGHTS.sub("", content).strip()
    fenced = CODE_FENCE.match(text)
    try:
        value = json.loads(fenced.group(1) if fenced else text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return invalid("not JSON", content)
    if not isinstance(value, dict) or set(value) != set(schema["required"]):
        return invalid("not of the schema", content)
    if value["check"] != check:
        return invalid("without this request's check code", content)
    return value


def _short(reason: str) -> str:
    return one_line(reason[: 4 * REASON_CHARS], REASON_CHARS)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value
