"""`selfplay run` as a function: sample what is missing, judge what is sampled, write the dataset.

Knows the order of the stages and when parts are written; how each stage works is the stage's own.
"""

from __future__ import annotations

import functools
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from selfplay.config import SampleConfig
from selfplay.core import Candidate, Site
from selfplay.dataset import write_lines
from selfplay.engines.base import Engine, SampleRequest
from selfplay.errors import EngineError, TooManyBadRows
from selfplay.inputs.quarantine import Quarantine
from selfplay.interrupt import Interrupt
from selfplay.models import published_as
from selfplay.plan import Planned, plan
from selfplay.prompting.templates import ChatTemplate
from selfplay.runs import Parts, Run
from selfplay.tables import SAMPLED_STATE, sites_table, turns_table

FLUSH_SITES = 256
FLUSH_SECONDS = 10.0

Judge = Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]
"""Turns and their sites in, the turns with signals, label, groundedness, rank and `selected` out."""


class Progress(Protocol):
    """Told of every site that is done."""

    def advance(self, sites: int, candidates: int, failed: int) -> None:
        """`sites` more were sampled with `candidates`, and `failed` more given up on."""


@dataclass(slots=True)
class Session:
    """What one start of a run did.

    Attributes:
        scored_tokens, scored_cached: What scoring on the sampling engine read, and found in its prefix cache, where
            the engine tells.
    """

    started: float = field(default_factory=time.time)
    sampling_seconds: float = 0.0
    judging_seconds: float = 0.0
    sites: int = 0
    candidates: int = 0
    completion_tokens: int = 0
    scored_tokens: int = 0
    scored_cached: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    error: EngineError | TooManyBadRows | None = None

    def as_json(self) -> dict[str, Any]:
        """For `run.json`."""
        names = (
            "started", "sampling_seconds", "judging_seconds", "sites", "candidates", "completion_tokens",
            "scored_tokens", "scored_cached",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names} | {"failed": len(self.failed), "ended": time.time()}


def sample(
    run: Run,
    engine: Engine,
    config: SampleConfig,
    template: ChatTemplate | None,
    context: int | None,
    sites: Iterable[Site],
    quarantine: Quarantine,
    interrupt: Interrupt,
    progress: Progress,
    on_part: Callable[[int], None] = lambda number: None,
) -> Session:
    """Samples what the run lacks and writes it as parts; `on_part` is called after each.

    A part is written when a group of an engine that batches is complete, or for others every `FLUSH_SITES` sites or
    `FLUSH_SECONDS`. An engine or reader that ends early leaves its error in the session, after all that was finished
    has been written.
    """
    session = Session()
    pending: dict[str, tuple[int, Site, SampleRequest]] = {}
    left: dict[int, int] = {}
    finished: dict[int, list[tuple[Planned, tuple[Candidate, ...]]]] = {}
    done = run.sampled()
    numbers = itertools.count(1 + max(run.parts("sampled"), default=-1))
    model = published_as(config.model)

    def groups() -> Iterator[list[SampleRequest]]:
        try:
            for number, group in enumerate(plan(sites, config, template, context, quarantine, engine.group, done)):
                left[number] = len(group)
                pending.update({site.site_id: (number, site, request) for site, request in group})
                yield [request for _, request in group]
                if interrupt.asked:
                    return
        except TooManyBadRows as error:  # what was read before is still worth finishing
            session.error = error

    def flush(complete_only: bool = True) -> None:
        ready = [n for n in finished if not complete_only or n not in left]
        rows = [item for n in ready for item in finished.pop(n)]
        if rows:
            number = next(numbers)
            # Contexts first: a part counts as sampled once its candidates are there, and then both must be.
            run.write("sites", number, sites_table(planned for planned, _ in rows))
            table = turns_table(((site, candidates) for (site, _), candidates in rows), model, config.primed)
            run.write("sampled", number, table)
            on_part(number)

    # A batching engine is given one group a call: where a group is short it would fill it up with the next one's sites,
    # and a later start, which leaves out what is done, would fill it up with others.
    calls: Iterable[Iterable[SampleRequest]] = (
        groups() if engine.group > 1 else [itertools.chain.from_iterable(groups())]
    )
    clock, flushed = time.monotonic(), time.monotonic()
    try:
        for result in (result for call in calls for result in engine.sample(call, config.sampling)):
            session.sampling_seconds += time.monotonic() - clock
            number, site, request = pending.pop(result.key)
            left[number] -= 1
            if not left[number]:
                del left[number]
            if result.error is not None:
                session.failed[result.key] = result.error
            elif not done(site):
                finished.setdefault(number, []).append(((site, request), result.candidates))
                session.sites += 1
                session.candidates += len(result.candidates)
                session.completion_tokens += sum(c.completion_tokens for c in result.candidates)
            progress.advance(1, len(result.candidates), int(result.error is not None))
            waiting = sum(len(rows) for rows in finished.values())
            full = engine.group > 1 and number not in left
            if full or waiting >= FLUSH_SITES or time.monotonic() - flushed >= FLUSH_SECONDS:
                flush()
                flushed = time.monotonic()
            clock = time.monotonic()
    except EngineError as error:
        session.error = error
    except KeyboardInterrupt:
        interrupt.asked = True  # stop now; what has been finished is still written
    session.interrupted = interrupt.asked
    flush(complete_only=engine.group > 1)
    return session


class Judging:
    """Filters and ranks sampled parts, in a thread of its own while others are sampled.

    Only numbers of parts wait in its queue: the parts themselves are on disk, where a later start finds them.

    Attributes:
        seconds: Spent judging.
        judge: What judges; for jobs that this thread does, since its models are not for two threads.
    """

    def __init__(self, run: Run, judge: Judge) -> None:
        self.seconds = 0.0
        self.judge = judge
        self._run = run
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._left = False
        self._error: BaseException | None = None
        # A daemon: whoever asks twice to stop does not wait for a part to be measured.
        self._thread = threading.Thread(target=self._work, daemon=True, name="judging")
        self._thread.start()
        for number in run.unfinished():
            self.submit(number)

    def submit(self, number: int, parts: Parts | None = None, then: Callable[[], None] = lambda: None) -> None:
        """Hands over a part, of the run unless `parts` are others. Raises what an earlier part raised.

        Args:
            then: Called in the judging thread once the part is written.
        """
        self.do(functools.partial(self._part, parts or self._run, number, then))

    def do(self, job: Callable[[], None]) -> None:
        """Has the judging thread do something, after what it was given before. Raises what that raised."""
        self.check()
        self._jobs.put(job)

    def check(self) -> None:
        """Raises what a part or job raised."""
        if self._error is not None:
            raise self._error

    def finish(self, interrupt: Interrupt) -> None:
        """Waits until all parts are judged, or the one in work where an interrupt is asked for.

        Raises what one of them raised.
        """
        self._jobs.put(None)
        while self._thread.is_alive():
            self._left = self._left or interrupt.asked
            self._thread.join(0.1)
        self.check()

    def leave(self, wait: bool = False) -> None:
        """Begins no further part; they are judged on resume. `wait`: until the one in work is written."""
        self._left = True
        self._jobs.put(None)
        if wait:
            self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._left:
            began = time.monotonic()
            try:
                job()
            except BaseException as error:  # handed to the thread that waits
                self._error = error
                return
            self.seconds += time.monotonic() - began

    def _part(self, parts: Parts, number: int, then: Callable[[], None]) -> None:
        sampled = parts.read("sampled", number)
        parts.write("turns", number, self.judge(sampled, parts.read("sites", number)))
        if parts is self._run and SAMPLED_STATE in sampled.columns:  # of rounds they are read once more
            parts.write("sampled", number, sampled.drop(SAMPLED_STATE))
        then()


def write_failed(folder: Path, failed: dict[str, str]) -> None:
    """`failed.jsonl`: one line per site given up on in this session; none, no file."""
    path = folder / "failed.jsonl"
    if failed:
        write_lines(path, ({"site_id": key, "reason": reason} for key, reason in failed.items()))
    else:
        path.unlink(missing_ok=True)
