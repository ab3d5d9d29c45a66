"""What a judge answers: the schema it is held to, and how an answer is read. Nothing is ever guessed."""

from __future__ import annotations

import json
import re
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

THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
CODE_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's decision; or `error`, and then the rest is None."""

    label: str | None = None
    groundedness: int | None = None
    reason: str | None = None
    error: str | None = None


def invalid(what: str, raw: str | None = None) -> Verdict:
    """A recorded failure to decide, with the head of what was answered."""
    return Verdict(error=f"{what}: {one_line(raw[: 4 * HEAD_CHARS], HEAD_CHARS)}" if raw else what)


def read_choice(choice: Any, check: str) -> Verdict:
    """The verdict in one choice of a chat completion.

    Args:
        check: The request's check code (see `fence`), which the answer must repeat.
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
    return read_text(content, check)


def read_text(content: str, check: str) -> Verdict:
    """The verdict in the text of an answer: one JSON object as in `SCHEMA`, and nothing else.

    A leading `<think>` block and a code fence around the object are taken off, since servers without structured
    output leave them there.
    """
    text = THOUGHTS.sub("", content).strip()
    fenced = CODE_FENCE.match(text)
    try:
        value = json.loads(fenced.group(1) if fenced else text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return invalid("not JSON", content)
    if not isinstance(value, dict) or set(value) != set(SCHEMA["required"]):
        return invalid("not of the schema", content)
    if value["check"] != check:
        return invalid("without this request's check code", content)
    label, grade, reason = value["label"], value["groundedness"], value["reason"]
    if not isinstance(label, str) or label not in list(Label):
        return invalid("unknown label", content)
    if type(grade) is not int or grade not in GRADES:
        return invalid("groundedness is not 0, 1, 2 or 3", content)
    if not isinstance(reason, str):
        return invalid("the reason is not text", content)
    if label == Label.FOLLOW_UP and grade == 0:
        return invalid("against the rubric: a follow_up without a tie to the answer", content)
    return Verdict(label, grade, one_line(reason[: 4 * REASON_CHARS], REASON_CHARS))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value
