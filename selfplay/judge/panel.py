"""Judges over a file of turns: what is known comes from the cache, the rest is asked, every row gets its verdicts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from filters.labels import Label
from selfplay.engines.background import BackgroundLoop
from selfplay.errors import SelfplayError
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.turnrows import iter_turn_rows, left_out, write_turn_rows
from selfplay.interrupt import Interrupt
from selfplay.judge.budget import Budget, BudgetSpent
from selfplay.judge.cache import Cache, key_of
from selfplay.judge.client import Judge, Reply
from selfplay.judge.instructions import version
from selfplay.judge.tally import Tally

BATCH = 512
"""Turns judged together at least; the next ones are read when these are done."""

ADDED = ("judge", "label", "groundedness", "reason", "judge_error")

MARKS = ("rule", "evidence", "annotator", "judge", "reason", "judge_error")
"""Columns that belong to a label by rules, people or judges."""


@dataclass(frozen=True, slots=True)
class Case:
    """One turn before one judge."""

    row: str
    messages: list[Any]
    turn: str
    judge: Judge
    key: str


class Panel:
    """Judges a file.

    Args:
        concurrency: Requests in flight at once, of all judges together.
        anew: Ask again where the cache holds an invalid answer.
    """

    def __init__(
        self, judges: Sequence[Judge], cache: Cache, budget: Budget, *, concurrency: int = 16, anew: bool = False
    ) -> None:
        self.judges = list(judges)
        self.tally = Tally()
        self.stopped: BudgetSpent | None = None
        self.interrupted = False
        self._cache = cache
        self._budget = budget
        self._anew = anew
        self._concurrency = concurrency
        self._background = BackgroundLoop()

    def close(self) -> None:
        """Stops the requests and closes the connections."""
        try:
            for judge in self.judges:
                self._background.run(judge.close())
        finally:
            self._background.close()

    def verdicts(self, source: str, quarantine: Quarantine, limit: int | None) -> Iterator[pl.DataFrame]:
        """Tables of rows with the columns `ADDED`; ends early where the budget or the user says so."""
        with Interrupt() as interrupt:
            for table in iter_turn_rows(source, quarantine, max(BATCH, 8 * self._concurrency)):
                if limit is not None:
                    table = table.head(limit - self.tally.turns)
                cases = [case for values in table.iter_rows(named=True) for case in self._cases(values)]
                replies = self._background.run(self._judged(cases, interrupt))
                self.tally.turns += len(table)
                yield as_rows(cases, replies)
                if interrupt.asked or self.stopped or (limit is not None and self.tally.turns >= limit):
                    self.interrupted = interrupt.asked
                    return
            quarantine.check()

    def _cases(self, values: dict[str, Any]) -> Iterator[Case]:
        messages = json.loads(values["messages"]) if values["messages"] else said(values)
        for judge in self.judges:
            key = key_of(version(), judge.model, judge.host, messages, values["turn"])
            yield Case(values["row"], messages, values["turn"], judge, key)

    async def _judged(self, cases: list[Case], interrupt: Interrupt) -> list[Reply | None]:
        """A reply for each case; None where it was not asked any more."""
        replies: list[Reply | None] = [None] * len(cases)
        waiting: dict[str, list[int]] = {}
        for index, case in enumerate(cases):
            entry = self._cache.get(case.key)
            if entry is not None and not (self._anew and entry.verdict.error):
                replies[index] = Reply(entry)
                self.tally.add(case.judge.model, Reply(entry), cached=True)
            else:
                waiting.setdefault(case.key, []).append(index)  # equal turns are asked about once
        todo = iter(waiting.items())

        async def work() -> None:
            for key, indices in todo:
                if interrupt.asked or self.stopped:
                    return
                case = cases[indices[0]]
                try:
                    reply = await case.judge.judge(case.messages, case.turn)
                except BudgetSpent as spent:
                    self.stopped = spent
                    return
                if reply.final:
                    self._cache.put(key, reply.entry)
                for position, index in enumerate(indices):
                    replies[index] = reply
                    self.tally.add(case.judge.model, reply, cached=position > 0)
                self.tally.show(self._budget)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._concurrency, len(waiting))):
                group.create_task(work())
        return replies


def said(values: dict[str, Any]) -> list[dict[str, str]]:
    """The conversation of a row that holds its context in columns."""
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
        values = (case.judge.model, verdict.label, verdict.groundedness, verdict.reason, verdict.error)
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
        BudgetSpent: At the end, where the limit was reached; the verdicts so far are written.
        SelfplayError: The server cannot be used (nothing is written, the cache keeps the verdicts); or, at the end,
            some turns got no answer.
    """
    try:
        write_turn_rows(panel.verdicts(source, quarantine, limit), out, ADDED)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
    yield from left_out(quarantine)


def ended(panel: Panel) -> None:
    """Raises what a call that did not judge everything has to say.

    Raises:
        BudgetSpent, SelfplayError: As `judge_file` tells.
    """
    if panel.stopped:
        raise BudgetSpent(f"{panel.stopped}; give the same command again, or a higher limit, to go on")
    if panel.tally.unanswered:
        raise SelfplayError(f"{panel.tally.unanswered:,} turns got no answer; the same command asks for them again")
