"""JSON taken strictly, and what a row is once it has been read. Knows nothing of files or messages."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from selfplay.inputs.quarantine import BadRow

MAX_LINE = 64 << 20
MAX_DEPTH = 100


@dataclass(frozen=True, slots=True)
class Row:
    """One row as read: a JSON value, or the reason why there is none.

    Attributes:
        line: 1-based line or row number in its file.
        problem: `kind: detail`, or None.
        raw: The row's text, as far as it is worth keeping.
        rows: How many rows an unreadable part stands for.
    """

    line: int
    value: Any = None
    problem: str | None = None
    raw: str = ""
    rows: int = 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise BadRow(f"duplicate key: {twice[:80]!r} stands twice in one object")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadRow(f"not a finite number: {text[:40]}")
    return value


def _constant(text: str) -> float:
    raise BadRow(f"not a finite number: {text}")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_constant)


def parse_line(line: bytes) -> Any:
    """Parses one JSON line strictly: UTF-8, no NaN, no key twice, no lone surrogate, at most 100 levels deep.

    Raises:
        BadRow: With the reason.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRow(f"not UTF-8: byte {line[error.start]:#04x} at byte {error.start + 1} of the line") from None
    try:
        return parse_text(text)
    except json.JSONDecodeError as error:
        raise BadRow(f"broken JSON: {error.msg} at column {error.colno}") from None


def parse_text(text: str) -> Any:
    """As `parse_line`, from text that is UTF-8 for sure.

    Raises:
        BadRow: It is JSON, but none that we take.
        json.JSONDecodeError: It is no JSON.
    """
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise BadRow(f"nested too deeply: more than {MAX_DEPTH} levels") from None
    except ValueError:  # an integer of more digits than Python converts
        raise BadRow("not a finite number: an integer of thousands of digits") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise BadRow(f"nested too deeply: more than {MAX_DEPTH} levels")
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise BadRow("lone surrogate: half of a UTF-16 pair, which is no text") from None
    return value


def _depth(value: Any) -> int:
    """Levels of nested lists and objects; stops counting just above MAX_DEPTH."""
    depth = 0
    level = [value]
    while depth <= MAX_DEPTH:
        level = [item for item in level if isinstance(item, (dict, list))]
        if not level:
            break
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth
