"""Many questions to judges: what is known comes from the cache, the rest is asked, some at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from selfplay.engines.background import BackgroundLoop
from selfplay.errors import EngineError
from selfplay.interrupt import Interrupt
from selfplay.judge.budget import Budget, BudgetSpent
from selfplay.judge.cache import Cache, key_of
from selfplay.judge.client import Judge, Reply
from selfplay.judge.fence import of_turn
from selfplay.judge.forms import Form, comparing, grading, of_pair
from selfplay.judge.tally import Tally


@dataclass(frozen=True, slots=True)
class Question:
    """What one judge is asked; equal questions have equal keys."""

    judge: Judge
    form: Form
    data: dict[str, Any]
    key: str


def about_turn(judge: Judge, messages: list[Any], turn: str) -> Question:
    """What is this turn worth?"""
    key = key_of(grading().version, judge.model, judge.host, messages, turn)
    return Question(judge, grading(), of_turn(messages, turn), key)


def about_pair(judge: Judge, messages: list[Any], first: str, second: str) -> Question:
    """Which of these turns is better? The other order is another question."""
    key = key_of(comparing().version, judge.model, judge.host, messages, [first, second])
    return Question(judge, comparing(), of_pair(messages, first, second), key)


class Asker:
    """Asks, counts and remembers.

    Args:
        concurrency: Questions in flight at once, of all judges together.
        anew: Ask again where the cache holds an invalid answer.

    Attributes:
        stopped: Why nothing more is asked: the budget is spent.
        failed: Why nothing more is asked: a judge as a whole cannot be used.
    """

    def __init__(
        self, judges: Sequence[Judge], cache: Cache, budget: Budget, *, concurrency: int = 16, anew: bool = False
    ) -> None:
        self.judges = list(judges)
        self.tally = Tally()
        self.stopped: BudgetSpent | None = None
        self.failed: EngineError | None = None
        self._cache = cache
        self._budget = budget
        self._anew = anew
        self.concurrency = concurrency
        self._background = BackgroundLoop()

    def close(self) -> None:
        """Stops the requests and closes the connections."""
        try:
            for judge in self.judges:
                self._background.run(judge.close())
        finally:
            self._background.close()

    def report(self) -> Iterator[str]:
        """What was asked, answered and paid, one line each."""
        return self.tally.report(self.judges, self._budget)

    def replies(self, questions: Sequence[Question], interrupt: Interrupt) -> list[Reply | None]:
        """A reply for each question; None where it was not asked any more."""
        return self._background.run(self._replies(questions, interrupt))

    async def _replies(self, questions: Sequence[Question], interrupt: Interrupt) -> list[Reply | None]:
        replies: list[Reply | None] = [None] * len(questions)
        waiting: dict[str, list[int]] = {}
        for index, question in enumerate(questions):
            entry = self._cache.get(question.key)
            if entry is not None and not (self._anew and entry.verdict.error):
                replies[index] = Reply(entry)
                self.tally.add(question.judge.model, Reply(entry), cached=True)
            else:
                waiting.setdefault(question.key, []).append(index)  # equal turns are asked about once
        todo = iter(waiting.items())

        async def work() -> None:
            for key, indices in todo:
                if interrupt.asked or self.stopped:
                    return
                question = questions[indices[0]]
                try:
                    reply = await question.judge.ask(question.form, question.data)
                except BudgetSpent as spent:
                    self.stopped = spent
                    return
                if reply.final:
                    self._cache.put(key, reply.entry)
                for position, index in enumerate(indices):
                    replies[index] = reply
                    self.tally.add(question.judge.model, reply, cached=position > 0)
                self.tally.show(self._budget)

        if self.failed:
            return replies
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.concurrency, len(waiting))):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            _, others = errors.split(EngineError)
            if others:
                raise _first(others) from None
            error = _first(errors)
            self.failed = error if isinstance(error, EngineError) else None
        return replies


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
