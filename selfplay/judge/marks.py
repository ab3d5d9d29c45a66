"""What people wrote into a sheet: CSV from any spreadsheet, or the JSON or CSV that the HTML sheet saves."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

from filters.labels import PRECEDENCE
from selfplay.errors import UsageError
from selfplay.terminal import one_line

NAMES = [label.value for label in PRECEDENCE]
CSV_FIELD = 1 << 20
SHOWN = 3
"""Faults that a message names; it counts the others."""


def read_marks(path: str) -> tuple[dict[str, dict[str, Any]], int]:
    """Marks by id, each `label, groundedness, comment`, and how many turns were left without a label.

    Raises:
        UsageError: The file cannot be read or has cells that mean nothing; it names them.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8; save the sheet as “CSV UTF-8”") from None
    rows = _json_rows(path, text) if text.lstrip()[:1] in ("[", "{") else _csv_rows(path, text)
    marks: dict[str, dict[str, Any]] = {}
    faults: list[str] = []
    empty = 0
    for number, row in rows:
        name = str(row.get("id") or "").strip()
        given = {key: str(row[key]).strip() if row.get(key) is not None else "" for key in ("label", "groundedness")}
        if not name and not any(given.values()):
            continue  # an empty line at the end
        fault = _fault(name, marks, **given)
        if fault:
            faults.append(f"row {number}: {fault}")
        elif not given["label"]:
            empty += 1
        else:
            grade = given["groundedness"]
            comment = re.sub(r"\A'(?=\s*[=+\-@＝＋－＠])", "", str(row.get("comment") or "").strip()) or None
            marks[name] = {
                "label": _label(given["label"]),
                "groundedness": int(float(grade)) if grade else None,
                "comment": comment,
            }
    if faults:
        more = f" (and {len(faults) - SHOWN} more)" if len(faults) > SHOWN else ""
        raise UsageError(f"{path}: {'; '.join(faults[:SHOWN])}{more}")
    if not marks:
        raise UsageError(f"{path}: nothing is filled in; the column `label` takes 1-9 or a label's name")
    return marks, empty


def _fault(name: str, marks: dict[str, Any], label: str, groundedness: str) -> str | None:
    if not name:
        return "no id"
    if name in marks:
        return f"id {one_line(name, 40)} stands twice"
    if label and _label(label) is None:
        return f"label {one_line(label, 40)!r} is none of 1-9 or {', '.join(NAMES)}"
    if groundedness and not re.fullmatch(r"[0-3](?:\.0+)?", groundedness):
        return f"groundedness {one_line(groundedness, 40)!r} is none of 0, 1, 2, 3"
    if groundedness and not label:
        return "groundedness without a label"
    return None


def _label(text: str) -> str | None:
    """A label by name or by its number in the rubric, as a spreadsheet may have changed it (`5.0`, `Follow Up`)."""
    name = re.sub(r"[\s-]+", "_", text.casefold())
    if re.fullmatch(r"[1-9](?:\.0+)?", name):
        return NAMES[int(float(name)) - 1]
    return name if name in NAMES else None


def _json_rows(path: str, text: str) -> list[tuple[int, dict[str, Any]]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: broken JSON: {one_line(error, 80)}") from None
    rows = value.get("marks") if isinstance(value, dict) else value
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path}: not what an HTML sheet saves; use its button “Save JSON”")
    return list(enumerate(rows, 1))


def _csv_rows(path: str, text: str) -> list[tuple[int, dict[str, Any]]]:
    """Rows with their number in the spreadsheet, the header being row 1."""
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)  # spreadsheets write what their country uses
    before = csv.field_size_limit(CSV_FIELD)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise UsageError(f"{path}: broken CSV: {error}") from None
    finally:
        csv.field_size_limit(before)
    names = [name.strip().casefold() for name in rows[0]] if rows else []
    if not {"id", "label"} <= set(names):
        raise UsageError(f"{path}: no columns `id` and `label` in its first line; give the sheet annotate wrote")
    return [(number, dict(zip(names, row, strict=False))) for number, row in enumerate(rows[1:], 2)]
