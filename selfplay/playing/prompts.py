"""Reads what dialogues are played from: conversations cut behind a message of the user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from selfplay.core import Conversation, Message
from selfplay.inputs.conversations import UniqueIds, content_id
from selfplay.inputs.quarantine import BadRow, Quarantine
from selfplay.inputs.reading import good_rows
from selfplay.inputs.shapes import an_object, detect_shape, take_apart

Start = Literal["first", "last"]


def read_prompts(
    path: str, quarantine: Quarantine, start: Start = "last", persona: str | None = None
) -> Iterator[Conversation]:
    """Streams the beginnings of dialogues, each ending with a user message, in order.

    Rows are `{"prompt": text or messages}` or conversations in any shape of `selfplay.inputs.shapes`; of those that
    go on after the user message that `start` names, the rest is left out.

    Args:
        start: Which user message is the prompt: the first, or the last with everything before it.
        persona: Column that every row must have a text in.

    Raises:
        UsageError, TooManyBadRows: As `selfplay.inputs.reading.good_rows`.
    """

    def take(row: Any, shape: str | None) -> tuple[str, tuple[str | None, tuple[Message, ...], dict[str, Any]]]:
        found, given, messages, extra = take_apart(_with_messages(an_object(row)), shape)
        if persona is not None and not (isinstance(extra.get(persona), str) and extra[persona].strip()):
            raise BadRow(f"no persona: column {persona!r} holds no text")
        return found, (given, prompt_of(messages, start), extra)

    def read() -> Iterator[Conversation]:
        ids = UniqueIds()
        for origin, (given, messages, extra) in rows:
            yield Conversation(ids.claim(given or content_id(messages)), messages, origin, extra)

    rows = good_rows(path, quarantine, take)
    return read()


def prompt_of(messages: tuple[Message, ...], start: Start) -> tuple[Message, ...]:
    """The messages up to the user message that `start` names.

    Raises:
        BadRow: There is none with text, or a call of a tool before it has no answer.
    """
    ends = [end for end, message in enumerate(messages, 1) if message["role"] == "user" and message["content"].strip()]
    if not ends:
        raise BadRow("no prompt: no user message has text")
    return messages[: ends[0] if start == "first" else ends[-1]]


def _with_messages(row: dict[str, Any]) -> dict[str, Any]:
    """A row that has a prompt and no conversation, with the prompt as its messages."""
    prompt = row.get("prompt")
    if prompt is None or detect_shape(row) is not None:
        return row
    rest = {key: value for key, value in row.items() if key not in ("prompt", "messages")}
    return {**rest, "messages": [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt}
