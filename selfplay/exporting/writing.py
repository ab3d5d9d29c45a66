"""Rows into files, one for each split. Which split is decided by the conversation alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from selfplay.inputs.conversations import hash64
from selfplay.inputs.parquet_parts import parquet_rows

SPLITS = ("train", "validation")


def split_of(conversation_id: str, validation: float, seed: int) -> str:
    """`train` or `validation`, by a hash: more data moves no conversation from one to the other.

    Conversations that came with the same id (`a`, `a~2` …) go together.

    Args:
        validation: The share of conversations, about.
    """
    name = re.sub(r"~\d+$", "", conversation_id)
    return "validation" if hash64(f"{seed}\0{name}") < validation * 2**64 else "train"


def write_splits(
    rows: Iterable[tuple[str, dict[str, Any]]], place: Callable[[str], Path], validation: float, seed: int
) -> dict[str, int]:
    """Writes rows to the file that `place` gives for their split; JSONL, or Parquet where it is called so.

    Args:
        rows: Conversation ids and rows.

    Returns:
        Rows by split; of a split without any there is no file.

    Raises:
        UsageError: A column cannot be written as Parquet, since it holds values of several types.
    """
    counts: dict[str, int] = {}
    with ExitStack() as stack:
        writers: dict[str, Callable[[dict[str, Any]], None]] = {}
        for conversation_id, row in rows:
            split = split_of(conversation_id, validation, seed)
            if split not in writers:
                path = place(split)
                path.parent.mkdir(parents=True, exist_ok=True)
                writers[split] = stack.enter_context((parquet if path.suffix == ".parquet" else jsonl)(path))
            writers[split](row)
            counts[split] = counts.get(split, 0) + 1
    return {split: counts[split] for split in SPLITS if split in counts}


@contextmanager
def jsonl(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Gives what writes a row."""
    with open(path, "w", encoding="utf-8") as file:
        yield lambda row: print(json.dumps(row, ensure_ascii=False), file=file)


@contextmanager
def parquet(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Gives what writes a row. Arguments of tool calls become JSON text, since every tool has its own."""
    with parquet_rows(path, path.name) as add:
        yield lambda row: add([{name: with_text_arguments(value) for name, value in row.items()}])


def with_text_arguments(value: Any) -> Any:
    """Messages whose tool calls have their arguments as JSON text; other values as they are."""
    if not isinstance(value, list) or not any(isinstance(item, Mapping) and item.get("tool_calls") for item in value):
        return value
    return [
        {**message, "tool_calls": [_text_call(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in value
    ]


def _text_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping) or isinstance(function.get("arguments"), str):
        return dict(call)
    return {**call, "function": {**function, "arguments": json.dumps(function.get("arguments"), ensure_ascii=False)}}
