"""Judges over a file of turns: what is known comes from the cache, the rest is asked, every row gets its verdicts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from filters.labels import Label
from selfplay.errors import SelfplayError
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.turnrows import iter_turn_rows, left_out, write_turn_rows
from selfplay.interrupt import Interrupt
from selfplay.judge.asking import Asker, Question, about_turn
from selfplay.judge.budget import BudgetSpent
from selfplay.judge.client import Reply

BATCH = 512
"""Turns judged together at least; the next ones are read when these are done."""

ADDED = ("judge", "label", "groundedness", "reason", "judge_error")

MARKS = ("rule", "evidence", "annotator", "judge", "reason", "judge_error")
"""Columns that belong to a label by rules, people or judges."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row before one judge."""

    row: str
    question: Question


class Panel:
    """Judges a file."""

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.interrupted = False

    def verdicts(self, source: str, quarantine: Quarantine, limit: int | None) -> Iterator[pl.DataFrame]:
        """Tables of rows with the columns `ADDED`; ends early where the budget or the user says so.

        Raises:
            EngineError: A judge cannot be used.
        """
        asker, tally = self.asker, self.asker.tally
        with Interrupt() as interrupt:
            for table in iter_turn_rows(source, quarantine, max(BATCH, 8 * asker.concurrency)):
                if limit is not None:
                    table = table.head(limit - tally.turns)
                cases = [case for values in table.iter_rows(named=True) for case in self._cases(values)]
                replies = asker.replies([case.question for case in cases], interrupt)
                if asker.failed:
                    raise asker.failed
                tally.turns += len(table)
                yield as_rows(cases, replies)
                if interrupt.asked or asker.stopped or (limit is not None and tally.turns >= limit):
                    self.interrupted = interrupt.asked
                    return
            quarantine.check()

    def _cases(self, values: dict[str, Any]) -> Iterator[Case]:
        messages = conversation(values)
        for judge in self.asker.judges:
            yield Case(values["row"], about_turn(judge, messages, values["turn"]))


def conversation(values: dict[str, Any]) -> list[Any]:
    """The messages of a row, or what its columns tell of them."""
    if values["messages"]:
        messages: list[Any] = json.loads(values["messages"])
        return messages
    users = [{"role": "user", "content": text} for text in values["history"]]
    return [*users, {"role": "assistant", "content": values["answer"]}]


def as_rows(cases: Sequence[Case], replies: Sequence[Reply | None]) -> pl.DataFrame:
    """The cases that have a reply, with the columns `row` and `ADDED`; a stale `genuine` in the row follows."""
    rows = []
    for case, reply in zip(cases, replies, strict=True):
        if reply is None:
            continue
        verdict = reply.entry.verdict
        row = without_marks(json.loads(case.row))
        if "genuine" in row:
            row["genuine"] = None if verdict.label is None else verdict.label == Label.FOLLOW_UP
        values = (case.question.judge.model, verdict.label, verdict.groundedness, verdict.reason, verdict.error)
        rows.append({"row": json.dumps(row), **dict(zip(ADDED, values, strict=True))})
    types = {name: pl.Int64() if name == "groundedness" else pl.String() for name in ("row", *ADDED)}
    return pl.DataFrame(rows, schema=pl.Schema(types))


def without_marks(row: dict[str, Any]) -> dict[str, Any]:
    """The row without what earlier labels brought along, so that a row always tells who gave it its label.

    Of rows that several labelled in turn, `selfplay.judge.raters` takes the last by these marks.
    """
    return {name: value for name, value in row.items() if name not in MARKS}


def judge_file(panel: Panel, source: str, out: str, quarantine: Quarantine, limit: int | None) -> Iterator[str]:
    """Judges the turns of `source` and writes one row for each turn and judge; yields lines about what was done.

    Raises:
        EngineError: A judge cannot be used; nothing is written, the cache keeps the verdicts.
    """
    write_turn_rows(panel.verdicts(source, quarantine, limit), out, ADDED)
    yield from left_out(quarantine)


def ended(asker: Asker) -> None:
    """Raises what a call that did not judge everything has to say.

    Raises:
        BudgetSpent: The limit was reached; the verdicts so far are written.
        SelfplayError: Some questions got no answer.
    """
    if asker.stopped:
        raise BudgetSpent(f"{asker.stopped}; give the same command again, or a higher limit, to go on")
    if asker.tally.unanswered:
        raise SelfplayError(f"{asker.tally.unanswered:,} turns got no answer; the same command asks for them again")
