"""`selfplay run --until-survivors`: draw, judge, and draw again where too little was found.

Every round of every site is a row group in the parts of `rounds/`, sampled and judged like any other, so a kill costs
no more than in a run of one round. When a stretch of sites is through with all rounds, their candidates are ranked
together, written as an ordinary part, and removed from `rounds/`.
"""

from __future__ import annotations

import functools
import queue
import time
from collections import deque
from collections.abc import Iterable, Iterator

from selfplay.config import SampleConfig
from selfplay.core import Candidate, Site
from selfplay.engines.base import Engine, SampleRequest, SampleResult
from selfplay.errors import EngineError, TooManyBadRows
from selfplay.inputs.quarantine import Quarantine
from selfplay.interrupt import Interrupt
from selfplay.pipeline import FLUSH_SECONDS, FLUSH_SITES, Judging, Progress, Session
from selfplay.plan import Planned, plan
from selfplay.prompting.templates import ChatTemplate
from selfplay.rounds.cohorts import Chunk, Cohort, Ledger
from selfplay.rounds.parts import RoundParts
from selfplay.runs import Ordinals, Run

COHORT_GROUPS = 8
"""Groups of an engine in a cohort. More fill the batches of later rounds better, and wait longer for the slowest."""
OPEN_SITES = 4096
"""Most sites in memory that were begun and are not whole; beyond, sampling waits for verdicts."""


def sample_until(
    run: Run,
    engine: Engine,
    config: SampleConfig,
    template: ChatTemplate | None,
    context: int | None,
    sites: Iterable[Site],
    quarantine: Quarantine,
    interrupt: Interrupt,
    progress: Progress,
    judging: Judging,
) -> Session:
    """Like `pipeline.sample`, in as many rounds as sites need. Ends when every site is whole, judged and written."""
    size = engine.group * COHORT_GROUPS if engine.group > 1 else 1
    whole = run.ordinals()

    def done(site: Site) -> bool:
        return site.ordinal in whole

    cohorts = plan(sites, config, template, context, quarantine, size, done)
    session = Session()
    ledger = Ledger()
    opened = (Cohort(planned, engine.group, config, done, ledger) for planned in cohorts)
    parts = RoundParts(run, config)
    rounds = _Rounds(run, parts, opened, ledger, session, judging, progress, interrupt, engine.group)
    try:
        rounds.resume(whole)
        while not interrupt.asked and (chunk := rounds.next(wait=True)) is not None:
            clock = time.monotonic()
            # A batching engine is given one chunk a call, since it would batch the next one's first sites with this.
            for result in engine.sample(rounds.requests(chunk, further=engine.group == 1), config.sampling):
                session.sampling_seconds += time.monotonic() - clock
                rounds.take(result)
                clock = time.monotonic()
            session.sampling_seconds += time.monotonic() - clock
            rounds.flush()
    except EngineError as error:
        session.error = error
    except KeyboardInterrupt:
        interrupt.asked = True  # stop now; what has been finished is still written
    rounds.flush()
    session.interrupted = interrupt.asked and not rounds.settled
    if rounds.settled:
        parts.close()
    return session


class _Rounds:
    """Everything between the engine's results and the parts. For one thread."""

    def __init__(
        self,
        run: Run,
        parts: RoundParts,
        source: Iterator[Cohort],
        ledger: Ledger,
        session: Session,
        judging: Judging,
        progress: Progress,
        interrupt: Interrupt,
        group: int,
    ) -> None:
        self._run, self._parts, self._source, self._ledger = run, parts, source, ledger
        self._session, self._judging, self._progress, self._interrupt = session, judging, progress, interrupt
        self._group = group
        self._exhausted = False
        self._cohorts: deque[Cohort] = deque()  # in reading order, the finished ones that wait for others included
        self._cohort_of: dict[int, Cohort] = {}
        self._again: deque[Chunk] = deque()
        self._first: deque[Chunk] = deque()
        self._flying: dict[str, tuple[Site, SampleRequest, int]] = {}
        self._held: list[tuple[Planned, tuple[Candidate, ...], int]] = []
        self._flushed = time.monotonic()
        self._whole: set[int] = set()
        self._merging = 0
        self._inbox: queue.SimpleQueue[tuple[str, int, frozenset[int]]] = queue.SimpleQueue()

    @property
    def settled(self) -> bool:
        """Whether all that was read is whole and written."""
        return self._exhausted and not (self._cohorts or self._whole or self._merging)

    def resume(self, whole: Ordinals) -> None:
        """Reads what earlier starts left in `rounds/`, and removes what was moved out of it."""
        for number, keys, judged in self._parts.resume(whole):
            self._ledger.sampled |= keys
            if judged:
                self._judged(number)
            else:
                self._submit(number)

    def next(self, wait: bool = False) -> Chunk | None:
        """What to sample now: sites drawn at before come first. None if there is nothing.

        Args:
            wait: Until there is something; then None means that all is settled or an interrupt was asked for.
        """
        while True:
            self._hear()
            self._open()
            if self._again or self._first:
                return (self._again or self._first).popleft()
            self._settle()
            if not wait or self.settled:
                return None
            self._hear(block=True)
            if self._interrupt.asked:
                return None

    def requests(self, chunk: Chunk, further: bool) -> Iterator[SampleRequest]:
        """The requests of a chunk; with `further`, those of all chunks that are ready when it is asked for more."""
        following: Chunk | None = chunk
        while following is not None:
            for site, request in following.planned:
                self._flying[request.key] = (site, request, following.round)
                yield request
            following = self.next() if further and not self._interrupt.asked else None

    def take(self, result: SampleResult) -> None:
        """Keeps a result; writes it where that makes a whole chunk, or enough."""
        site, request, number = self._flying.pop(result.key)
        cohort = self._cohort_of.get(site.ordinal)
        wanted = cohort is not None and (site.ordinal, number) not in self._ledger.sampled
        if cohort is None or not wanted:
            pass  # it was asked only because others were batched with it
        elif result.error is not None:
            self._session.failed[result.key] = result.error
            cohort.fail(site.ordinal)
            self._advance(cohort)
        else:
            self._held.append(((site, request), result.candidates, number))
            self._session.sites += number == 0
            self._session.candidates += len(result.candidates)
            self._session.completion_tokens += sum(c.completion_tokens for c in result.candidates)
        self._progress.advance(int(number == 0), len(result.candidates), int(result.error is not None))
        if self._group == 1:
            late = time.monotonic() - self._flushed >= FLUSH_SECONDS
            if late or len(self._held) >= FLUSH_SITES:
                self.flush()

    def flush(self) -> None:
        """Writes what is held, but no part of a chunk that an engine batches, and hands it to be judged."""
        self._flushed = time.monotonic()
        if not self._held or (self._group > 1 and self._flying):
            return
        number = self._parts.write([(planned, candidates) for planned, candidates, _ in self._held])
        self._ledger.sampled |= {(site.ordinal, drawn) for (site, _), _, drawn in self._held}
        self._held.clear()
        self._submit(number)

    def _submit(self, number: int) -> None:
        self._judging.submit(number, self._run.rounds, lambda: self._inbox.put(("judged", number, frozenset())))

    def _open(self) -> None:
        """Begins cohorts until there is something to sample, or enough in memory."""
        while not (self._exhausted or self._first or self._again) and len(self._cohort_of) < OPEN_SITES:
            try:
                cohort = next(self._source, None)
            except TooManyBadRows as error:  # what was read before is still worth finishing
                self._session.error, cohort = error, None
            if cohort is None:
                self._exhausted = True
                return
            self._cohorts.append(cohort)
            self._cohort_of |= dict.fromkeys(cohort.own, cohort)
            self._advance(cohort)

    def _advance(self, cohort: Cohort) -> None:
        for chunk in cohort.advance():
            (self._again if chunk.round else self._first).append(chunk)

    def _hear(self, block: bool = False) -> None:
        """Takes in what the judging thread has done; with `block` waits for something or an interrupt."""
        while True:
            self._judging.check()
            try:
                what, number, ordinals = self._inbox.get(timeout=0.1) if block else self._inbox.get_nowait()
            except queue.Empty:
                if block and not self._interrupt.asked:
                    continue
                return
            block = False
            if what == "judged":
                for cohort in self._judged(number):
                    self._advance(cohort)
            else:
                self._forget(ordinals)

    def _judged(self, number: int) -> list[Cohort]:
        """Notes the verdicts of a part; the cohorts they concern."""
        found = self._parts.found(number)
        self._ledger.found |= found
        ordinals = {ordinal for ordinal, _ in found}
        return list({id(c): c for o in sorted(ordinals) if (c := self._cohort_of.get(o)) is not None}.values())

    def _settle(self) -> None:
        """Has sites that are whole written, in reading order: whoever is before them must be through too."""
        while self._cohorts and self._cohorts[0].finished:
            self._whole |= self._cohorts[0].whole
            for ordinal in self._cohorts.popleft().own:
                del self._cohort_of[ordinal]
        if len(self._whole) >= FLUSH_SITES or (self._whole and self._exhausted and not self._cohorts):
            ordinals, self._whole = frozenset(self._whole), set()
            self._merging += 1
            self._judging.do(functools.partial(self._merge, ordinals, *self._parts.sources(ordinals)))

    def _merge(self, ordinals: frozenset[int], number: int, sources: list[int]) -> None:
        # In the judging thread, whose models are not for two.
        self._parts.merge(number, ordinals, sources, self._judging.judge)
        self._inbox.put(("merged", number, ordinals))

    def _forget(self, ordinals: frozenset[int]) -> None:
        self._merging -= 1
        self._ledger.forget(ordinals)
        self._parts.forget(ordinals)
