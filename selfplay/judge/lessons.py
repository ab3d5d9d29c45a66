"""Judged and annotated turns from a file, as `selfplay train` learns from them."""

from __future__ import annotations

import json
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from filters.labels import Label
from selfplay.errors import UsageError
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.turnrows import iter_turn_rows
from selfplay.judge.panel import conversation
from selfplay.judge.raters import content_key, conversation_of
from selfplay.tables import context_columns
from selfplay.terminal import one_line

WRITERS = ("source", "generator", "model")
"""Columns that may say who wrote a turn, the surest first."""
UNKNOWN = "unknown"
"""Source of turns that do not say who wrote them; they count as sampled."""


def read_lessons(path: Path) -> pl.DataFrame:
    """Rows with messages, turn, label and groundedness as the table that `training.read_judged` gives.

    `source` is the row's `source`, else its `generator` or `model`; `context` its `conversation_id` or `context`, else
    a hash of the first user message, so that no split parts what belongs together. Of a turn that several judged, what
    most say counts, with the median grade; without a majority it is left out, as are rows without a valid label. What
    was left out is counted on stderr.

    Raises:
        UsageError: The file cannot be read, has no usable row, or has labels that rules gave.
    """
    quarantine = Quarantine()
    left_out: Counter[str] = Counter()
    turns: dict[str, list[dict[str, Any]]] = {}
    for table in iter_turn_rows(str(path), quarantine):
        for values in table.iter_rows(named=True):
            row = json.loads(values["row"])
            if "rule" in row:
                raise UsageError(f"{path}: its labels are by rules (selfplay filter); give judged or annotated turns")
            fault = fault_of(row)
            if fault:
                left_out[fault] += 1
                continue
            turns.setdefault(content_key(values), []).append({"row": row, "values": values})
    lessons = []
    for key, votes in turns.items():
        label, count = Counter(vote["row"]["label"] for vote in votes).most_common(1)[0]
        if 2 * count <= len(votes):
            left_out["judges without a majority"] += 1
            continue
        lessons.append(lesson(key, label, [vote for vote in votes if vote["row"]["label"] == label]))
    if quarantine.bad:
        left_out["bad row"] += quarantine.bad
    if left_out:
        reasons = ", ".join(f"{count:,} × {reason}" for reason, count in left_out.most_common())
        print(f"{path}: left out {reasons}", file=sys.stderr)
    if not lessons:
        raise UsageError(f"{path}: no turn with a label and a grade; give what selfplay judge or annotate wrote")
    return pl.DataFrame(lessons, infer_schema_length=None)


def fault_of(row: dict[str, Any]) -> str | None:
    """Why nothing can be learned from a row."""
    label, grade = row.get("label"), row.get("groundedness")
    if label is None:
        return "invalid or without label"
    if not isinstance(label, str) or label not in list(Label):
        return f"label {one_line(label, 40)!r} is not the rubric's"
    if type(grade) is not int or not 0 <= grade <= 3:
        return "groundedness is no grade from 0 to 3"
    return None


def lesson(key: str, label: str, votes: list[dict[str, Any]]) -> dict[str, Any]:
    """One turn with its label; the context as in `tables.context_columns`."""
    row, values = votes[0]["row"], votes[0]["values"]
    messages = conversation(values)
    return {
        "id": key,
        "context": conversation_of(values, row),
        "site_id": values["site_id"],
        "source": next((row[name] for name in WRITERS if isinstance(row.get(name), str)), UNKNOWN),
        "turn": values["turn"],
        "label": label,
        "grade": round(statistics.median(vote["row"]["groundedness"] for vote in votes)),
        "finish_reason": values["finish_reason"],
        "messages": json.dumps(messages, ensure_ascii=False),
        **context_columns(messages),
    }
