"""How far a run has come: a bar on a terminal, a plain line now and then elsewhere. All of it on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Lines:
    """One line every `every` seconds, for logs."""

    def __init__(self, every: float = 15.0) -> None:
        self._started = self._last = time.monotonic()
        self._every = every
        self._sites = self._candidates = self._failed = 0

    def advance(self, sites: int, candidates: int, failed: int) -> None:
        """Counts, and says so if the last line is old enough."""
        self._sites += sites
        self._candidates += candidates
        self._failed += failed
        now = time.monotonic()
        if now - self._last >= self._every:
            self._last = now
            rate = self._candidates / (now - self._started)
            failed_part = f", {self._failed} failed" if self._failed else ""
            print(
                f"sampled {self._sites} sites: {self._candidates} candidates, {rate:.1f} candidates/s{failed_part}",
                file=sys.stderr,
                flush=True,
            )


class Bar:
    """A rich progress line; how many sites there are is not known before the source has been read."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._task = progress.add_task("sampling", total=None, candidates=0, failed="")
        self._failed = self._candidates = 0

    def advance(self, sites: int, candidates: int, failed: int) -> None:
        """Moves the line on."""
        self._candidates += candidates
        self._failed += failed
        note = f", {self._failed} failed" if self._failed else ""
        self._progress.update(self._task, advance=sites, candidates=self._candidates, failed=note)


class Silent:
    """Says nothing."""

    def advance(self, sites: int, candidates: int, failed: int) -> None:
        """Nothing."""


@contextmanager
def shown(quiet: bool = False) -> Iterator[Lines | Bar | Silent]:
    """The way of showing progress that fits where stderr goes."""
    if quiet:
        yield Silent()
    elif not sys.stderr.isatty():
        yield Lines()
    else:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(),
            TextColumn("{task.completed:.0f} sites, {task.fields[candidates]} candidates{task.fields[failed]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            yield Bar(progress)
