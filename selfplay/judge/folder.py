"""A folder of judged turns, in the form of filters/judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from selfplay.errors import UsageError
from selfplay.tables import context_columns
from selfplay.terminal import one_line

CONTEXTS, TURNS = "contexts.jsonl", "judged_turns.jsonl"
GRADE = "groundedness"
_KINDS = {str: "text", int: "a whole number"}


def read_folder(folder: Path) -> pl.DataFrame:
    """Judged turns with their contexts, one row per turn.

    Args:
        folder: Holds `contexts.jsonl` (`id, messages`, ending with the assistant's) and `judged_turns.jsonl`
            (`id, context, source, text, label, groundedness`, and `finish_reason` where sampled).

    Raises:
        UsageError: A file is missing or not of this form.
    """
    if not folder.exists():
        raise UsageError(f"{folder}: no such file or folder")
    absent = [name for name in (CONTEXTS, TURNS) if not (folder / name).exists()]
    if absent:
        raise UsageError(f"{folder}: a folder of judged turns holds {CONTEXTS} and {TURNS}; {absent[0]} is missing")
    try:
        contexts = {row["id"]: row for row in map(json.loads, read_lines(folder / CONTEXTS))}
        rows = [
            {
                "id": turn["id"],
                "context": turn["context"],
                "site_id": turn["context"],
                "source": turn["source"],
                "turn": turn["text"],
                "label": turn["label"],
                "grade": turn["groundedness"],
                "finish_reason": turn.get("finish_reason"),
                "messages": json.dumps(contexts[turn["context"]]["messages"], ensure_ascii=False),
                **context_columns(contexts[turn["context"]]["messages"]),
            }
            for number, turn in enumerate(map(json.loads, read_lines(folder / TURNS)), 1)
            if _is_typed(turn, number)
        ]
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{folder}: not judged turns as filters/judged has them ({error!r})") from None
    return pl.DataFrame(rows, infer_schema_length=None)


def _is_typed(turn: dict[str, Any], number: int) -> bool:
    """True. Raises: ValueError where a field is not of its type, and what comes after would not say which."""
    for name, kind in (("id", str), ("context", str), ("source", str), ("text", str), ("label", str), (GRADE, int)):
        if type(turn[name]) is not kind:
            raise ValueError(f"{TURNS} line {number}: {name} is {one_line(turn[name], 40)!r}, not {_KINDS[kind]}")
    return True


def read_lines(path: Path) -> list[str]:
    """The lines of a JSONL file. Only newlines end one: text may hold other separators, such as U+2028."""
    return path.read_text("utf-8").removesuffix("\n").split("\n")
