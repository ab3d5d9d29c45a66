"""The same messages in the shapes that chat templates differ in, and what a template silently lost of them.

Knows nothing of tokens or of any model family.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from selfplay.core import Message


def variants(messages: Sequence[Message], as_parts: bool = False) -> Iterator[list[Message]]:
    """The messages in one shape after the other, the most usual one first.

    Templates disagree on tool calls only: arguments as objects (Hugging Face) or as JSON strings (OpenAI), and an
    assistant message beside them without content as None or as "".

    Args:
        as_parts: Give content as `[{"type": "text", "text": …}]`, which some vision models ask for.
    """
    clean = [_without_nulls(message) for message in messages]
    if as_parts:
        clean = [
            {**m, "content": [{"type": "text", "text": m["content"]}]} if isinstance(m["content"], str) else m
            for m in clean
        ]
    seen: list[list[Message]] = []
    for convert in (_to_object, _to_json):
        for nothing in (None, ""):
            shape = [_with_calls(message, convert, nothing) for message in clean]
            if shape not in seen:
                seen.append(shape)
                yield shape


def lost(messages: Sequence[Message], text: str) -> str | None:
    """What the template did without a word, as "leaves out a tool's result"; None if all is well.

    Answers are not looked at: a template may trim them or take their thinking away.
    """
    for message in messages:
        for call in message.get("tool_calls") or ():
            name = _function(call).get("name")
            if isinstance(name, str) and name not in text:
                return f"leaves out the tool call {name}"
        content = message.get("content")
        if message.get("role") == "tool" and isinstance(content, str):
            word = max(re.findall(r"[A-Za-z0-9]+", content), key=len, default="")
            if word not in text:
                return "leaves out a tool's result"
    if any(message.get("content", "") is None for message in messages):
        written = json.dumps(
            [{**message, "content": message.get("content") or ""} for message in messages], default=str
        )
        if text.count("None") > written.count("None"):
            return "writes empty content as None"
    return None


def _without_nulls(message: Message) -> dict[str, Any]:
    """Without the keys that a Parquet row has for what other rows hold; templates ask whether a key is there."""
    kept = {key: value for key, value in message.items() if value is not None and (key != "tool_calls" or value)}
    return {**kept, "content": message.get("content") or ""}


def _with_calls(message: dict[str, Any], convert: Callable[[Any], Any], nothing: str | None) -> Message:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    converted = [
        {**call, "function": {**call["function"], "arguments": convert(call["function"].get("arguments"))}}
        if isinstance(call, dict) and isinstance(call.get("function"), dict)
        else call
        for call in calls
    ]
    return {**message, "content": message["content"] or nothing, "tool_calls": converted}


def _function(call: Any) -> dict[str, Any]:
    if not isinstance(call, dict):
        return {}
    function = call.get("function", call)
    return function if isinstance(function, dict) else {}


def _to_object(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _to_json(arguments: Any) -> Any:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
