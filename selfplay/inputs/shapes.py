"""From a row of any common chat shape to messages: OpenAI/TRL, ShareGPT, prompt with response.

Shapes, in the order in which they are looked for:
    messages: a list of `{role, content}`, as OpenAI and TRL write them.
    conversations (or conversation): ShareGPT's list of `{from, value}`; also of `{role, content}`.
    prompt+response (or prompt+completion): two strings, or TRL's lists of messages.
A column that is null counts as absent, since Parquet gives every row every column.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from selfplay.core import Message
from selfplay.inputs.quarantine import BadRow

SHAPES: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "conversations": ("conversations",),
    "conversation": ("conversation",),
    "prompt+response": ("prompt", "response"),
    "prompt+completion": ("prompt", "completion"),
}
ROLES = {
    **{role: role for role in ("system", "developer", "user", "assistant", "tool")},
    "human": "user",
    **dict.fromkeys(("gpt", "chatgpt", "bot", "model", "bing", "bard", "claude", "function_call"), "assistant"),
    **dict.fromkeys(("function", "observation", "function_response", "tool_response"), "tool"),
}
TEXT_PARTS = ("text", "input_text", "output_text")
ID_COLUMNS = ("id", "conversation_id")


def detect_shape(row: Mapping[str, Any]) -> str | None:
    """The first shape whose columns are all there and not null; None if there is none.

    Raises:
        BadRow: `prompt` with both `response` and `completion`: which one is the answer?
    """
    found = [shape for shape, columns in SHAPES.items() if _has(row, shape)]
    if found[:2] == ["prompt+response", "prompt+completion"]:
        raise BadRow("ambiguous: both response and completion beside prompt")
    return found[0] if found else None


def _has(row: Mapping[str, Any], shape: str) -> bool:
    return all(row.get(column) is not None for column in SHAPES[shape])


def split_row(row: Any, shape: str | None) -> tuple[str, str | None, tuple[Message, ...], dict[str, Any]]:
    """`take_apart`, for a row that must have a place for a user turn.

    Raises:
        BadRow: With the reason.
    """
    found = take_apart(row, shape)
    _must_speak(found[2])
    return found


def take_apart(row: Any, shape: str | None) -> tuple[str, str | None, tuple[Message, ...], dict[str, Any]]:
    """Takes one row apart.

    Args:
        row: The parsed row.
        shape: The shape of the file's first good row, None before it. A later row that lacks its columns but has
            those of another shape is read in that shape; one that has both is read in the file's.

    Returns:
        Shape, id (None if not given), messages, and the columns that are neither.

    Raises:
        BadRow: With the reason.
    """
    row = an_object(row)
    if shape is None or not _has(row, shape):
        shape = detect_shape(row)
    if shape is None:
        empty = [column for column in SHAPES if column in row]
        if empty:
            raise BadRow(f"wrong type: {empty[0]} is null")
        names = ", ".join(repr(str(key)[:40]) for key in list(row)[:8]) or "none"
        raise BadRow(f"no conversation: no messages, conversations, or prompt with response; columns are {names}")
    columns = SHAPES[shape]
    if len(columns) == 1:
        messages = _messages(row[columns[0]], columns[0])
    else:
        messages = _messages(_side(row, columns[0], "user"), "prompt")
        messages += _messages(_side(row, columns[1], "assistant"), columns[1])
    extra = {key: value for key, value in row.items() if key != "id" and key not in columns}
    return shape, given_id(row), messages, extra


def an_object(row: Any) -> dict[str, Any]:
    """The row itself. Raises BadRow if it is no object."""
    if not isinstance(row, dict):
        raise BadRow(f"not an object: the row is {kind_of(row)}")
    return row


def given_id(row: Mapping[str, Any]) -> str | None:
    """The id that the row brings, as text; None if it has none. Raises BadRow if it is neither text nor a number."""
    for column in ID_COLUMNS:
        value = row.get(column)
        if value is None or value == "":
            continue
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise BadRow(f"wrong type: {column} is {kind_of(value)}, not a string or whole number")
        return str(value)
    return None


def _side(row: Mapping[str, Any], column: str, role: str) -> Any:
    """One side of prompt and response as a list of messages."""
    value = row[column]
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list):
        raise BadRow(f"wrong type: {column} is {kind_of(value)}, not a string or a list of messages")
    return value


def _messages(value: Any, column: str) -> tuple[Message, ...]:
    if isinstance(value, dict) and value and all(isinstance(item, list) for item in value.values()):
        # Older `datasets` store a list of structs as a struct of lists.
        lengths = {len(item) for item in value.values()}
        if len(lengths) > 1:
            raise BadRow(f"wrong type: {column} is an object of lists that differ in length")
        value = [dict(zip(value, items, strict=True)) for items in zip(*value.values(), strict=True)]
    if not isinstance(value, list):
        raise BadRow(f"wrong type: {column} is {kind_of(value)}, not a list")
    if not value:
        raise BadRow(f"no messages: {column} is an empty list")
    return tuple(_message(item, f"message {number}") for number, item in enumerate(value, 1))


def _message(item: Any, where: str) -> Message:
    if not isinstance(item, dict):
        raise BadRow(f"wrong type: {where} is {kind_of(item)}, not an object")
    sharegpt = item.get("role") is None and item.get("from") is not None
    role_key, content_key = ("from", "value") if sharegpt else ("role", "content")
    given = item.get(role_key)
    if given is None:
        raise BadRow(f"missing role: {where} has none")
    if not isinstance(given, str):
        raise BadRow(f"wrong type: role of {where} is {kind_of(given)}")
    name = given.strip().lower()
    role = ROLES.get(name)
    if role is None:
        raise BadRow(f"unknown role: {given[:60]!r} in {where}")
    rest = {k: v for k, v in item.items() if k not in (role_key, content_key) and v is not None}
    calls = role == "assistant" and bool(rest.get("tool_calls") or rest.get("function_call"))
    if content_key not in item and not calls:
        raise BadRow(f"missing content: {where} ({role}) has no {content_key!r}")
    content = _text(item.get(content_key), f"{where} ({role})", calls)
    if name == "function_call":
        content, rest["tool_calls"] = "", _called(content, where)
    return {"role": role, "content": content, **rest}


def _text(content: Any, where: str, calls: bool) -> str:
    if isinstance(content, str):
        return content
    if content is None and calls:
        return ""
    if not isinstance(content, list):
        raise BadRow(f"wrong type: content of {where} is {kind_of(content)}")
    pieces = []
    for part in content:
        if isinstance(part, dict) and part.get("type") not in TEXT_PARTS and isinstance(part.get("type"), str):
            raise BadRow(f"not text: {where} has a part of type {part['type'][:40]!r}")
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            raise BadRow(f"wrong type: a part of {where} holds no text")
        pieces.append(text)
    return "".join(pieces)


def _called(content: str, where: str) -> list[dict[str, Any]]:
    """ShareGPT's `function_call` turn: its text is the call, as JSON."""
    try:
        call = json.loads(content)
    except (ValueError, RecursionError):
        call = None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise BadRow(f"wrong type: function_call of {where} is no JSON object with a name")
    return [{"type": "function", "function": {"name": call["name"], "arguments": call.get("arguments", {})}}]


def _must_speak(messages: tuple[Message, ...]) -> None:
    if not any(message["content"].strip() for message in messages):
        raise BadRow("empty: no message has any text")
    if not any(message["role"] == "assistant" and message["content"].strip() for message in messages):
        raise BadRow("assistant never speaks: no assistant message has text")
    if not site_ends(messages):
        raise BadRow("no place for a user turn: tools or another answer follow everything the assistant says")


def site_ends(messages: tuple[Message, ...]) -> list[int]:
    """Where a user could speak: message counts of the contexts that end an assistant's turn.

    That is after an assistant message with text which neither another assistant message nor a tool's answers. One
    that calls a tool counts only where a user message does follow. Consecutive assistant messages are one turn,
    which ends with the last of them.
    """
    ends = []
    for end, message in enumerate(messages, 1):
        if message["role"] != "assistant" or not message["content"].strip():
            continue
        following = messages[end]["role"] if end < len(messages) else None
        if following in ("assistant", "tool"):
            continue
        if (message.get("tool_calls") or message.get("function_call")) and following != "user":
            continue
        ends.append(end)
    return ends


def kind_of(value: Any) -> str:
    """A JSON value's type in words."""
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "a list" if isinstance(value, list) else "an object")
