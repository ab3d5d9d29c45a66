"""What the closing lines about judges say, and the line that tells how far it has come."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator

from filters.labels import PRECEDENCE
from selfplay.judge.budget import Budget
from selfplay.judge.client import Judge, Reply
from selfplay.judge.verdict import SIDES

WORDS = (*(label.value for label in PRECEDENCE), *SIDES)
"""What a verdict may say, in the order of the report."""
EVERY = 15.0
"""Seconds between two lines of progress, where stderr is no terminal."""


class Tally:
    """Counts verdicts by judge, and shows the number now and then."""

    def __init__(self) -> None:
        self.turns = 0
        self.asked = self.cached = self.unanswered = 0
        self.said: dict[str, Counter[str]] = {}
        self.invalid: dict[str, Counter[str]] = {}
        self._last = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def add(self, model: str, reply: Reply, cached: bool) -> None:
        """Counts one verdict."""
        verdict = reply.entry.verdict
        self.cached += cached
        self.asked += not cached
        if verdict.said is not None:
            self.said.setdefault(model, Counter())[verdict.said] += 1
            return
        kind = (verdict.error or "").split(": ", 1)[0]
        self.unanswered += kind == "no answer"
        self.invalid.setdefault(model, Counter())[kind] += 1

    def show(self, budget: Budget) -> None:
        """A line on stderr, if the last one is old enough."""
        now = time.monotonic()
        if now - self._last < (0.2 if self._terminal else EVERY):
            return
        self._last = now
        cost = f", cost {budget.spent:.4f}" if budget.spent else ""
        line = f"judged {self.asked + self.cached:,} ({self.cached:,} known before){cost}"
        print(f"\r{line}\033[K" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    def report(self, judges: list[Judge], budget: Budget) -> Iterator[str]:
        """The closing lines."""
        if self._terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        yield f"{self.turns:,} turns, {self.asked + self.cached:,} verdicts, {self.cached:,} of them known before"
        for judge in judges:
            said, bad = self.said.get(judge.model, Counter()), self.invalid.get(judge.model, Counter())
            found = ", ".join(f"{word} {said[word]:,}" for word in WORDS if said[word])
            faults = ", ".join(f"{count:,} × {kind}" for kind, count in bad.most_common())
            yield f"{judge.model}: {found or 'nothing valid'}; invalid {bad.total():,}" + (
                f" ({faults})" if faults else ""
            )
            yield from judge.notes
        if any(bad["cut at the token limit"] for bad in self.invalid.values()):
            yield "answers were cut: a higher --max-tokens with --retry-invalid asks for them again"
        priced = any(judge.priced for judge in judges)
        requests = sum(judge.requests for judge in judges)
        cost = f", cost {budget.spent:.6g}" if priced else ""
        yield f"{requests:,} requests, tokens in {budget.tokens_in:,}, out {budget.tokens_out:,}{cost}"
        if budget.unknown:
            yield f"{budget.unknown:,} requests without a token count" + (", at their upper bound" if priced else "")
