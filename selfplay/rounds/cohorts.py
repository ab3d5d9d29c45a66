"""Who is drawn at again, and with whom: the bookkeeping of `--until-survivors`.

Sites are taken in cohorts, runs of consecutive sites. Within a cohort a round begins once the round before it has been
judged whole, so that who is batched with whom depends on verdicts alone and never on time: an engine whose rounding
depends on its batch repeats itself. Cohorts do not wait for each other. Knows nothing of files, engines or threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from selfplay.config import SampleConfig, draws
from selfplay.core import Site
from selfplay.plan import Planned

Key = tuple[int, int]
"""A site's ordinal and a round, 0 being the first."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Sites that an engine batches together, with their draws of one round."""

    round: int
    planned: tuple[Planned, ...]


@dataclass(slots=True)
class Ledger:
    """What has happened, of sites that are not whole yet.

    Attributes:
        sampled: Rounds of sites whose candidates are there.
        found: The distinct turns that may be chosen, of each round that has been judged.
    """

    sampled: set[Key] = field(default_factory=set)
    found: dict[Key, frozenset[str]] = field(default_factory=dict)

    def forget(self, ordinals: Iterable[int]) -> None:
        """Sites that are whole need no entry any more."""
        gone = set(ordinals)
        self.sampled = {key for key in self.sampled if key[0] not in gone}
        self.found = {key: texts for key, texts in self.found.items() if key[0] not in gone}


class Cohort:
    """Consecutive sites and how far they have come.

    Attributes:
        own: Ordinals of the sites that are to become whole. Others are there only because they were batched with
            these.
        finished: Whether no site of it is to be drawn at any more.
    """

    def __init__(
        self, planned: Sequence[Planned], group: int, config: SampleConfig, done: Callable[[Site], bool], ledger: Ledger
    ) -> None:
        self.own = {site.ordinal for site, _ in planned if not done(site)}
        self.finished = False
        self._planned = {site.ordinal: (site, request) for site, request in planned}
        self._members = list(self._planned)
        self._round = -1
        self._group, self._config, self._ledger = group, config, ledger
        self._failed: set[int] = set()

    def fail(self, ordinal: int) -> None:
        """The engine gave up on a site: it does not become whole, and the others go on without it."""
        self._failed.add(ordinal)

    @property
    def whole(self) -> set[int]:
        """Sites that have all their candidates, once finished."""
        return self.own - self._failed

    def advance(self) -> list[Chunk]:
        """What to sample next: the chunks of a round that has just begun. Sets `finished` if none is to come."""
        while not self.finished and self._judged():
            self._round += 1
            if self._round:
                self._members = [ordinal for ordinal in self._members if self._wanting(ordinal)]
                self.finished = not self._members
            chunks = [self._chunk(ordinals) for ordinals in self._batches() if self._missing(ordinals)]
            if chunks:
                return chunks
        return []

    def _judged(self) -> bool:
        waited_for = self.whole.intersection(self._members) if self._round >= 0 else ()
        return all((ordinal, self._round) in self._ledger.found for ordinal in waited_for)

    def _wanting(self, ordinal: int) -> bool:
        if ordinal not in self.whole or not draws(self._config, "", self._round):
            return False
        found: set[str] = set().union(*(self._ledger.found[ordinal, past] for past in range(self._round)))
        return len(found) < (self._config.until_survivors or 0)

    def _batches(self) -> Iterator[list[int]]:
        if self._round == 0:  # as without rounds: by ordinal, whatever could not be rendered
            for _, ordinals in itertools.groupby(self._members, lambda ordinal: ordinal // self._group):
                yield list(ordinals)
        else:
            for start in range(0, len(self._members), self._group):
                yield self._members[start : start + self._group]

    def _missing(self, ordinals: Iterable[int]) -> bool:
        return any((ordinal, self._round) not in self._ledger.sampled for ordinal in self.own.intersection(ordinals))

    def _chunk(self, ordinals: Iterable[int]) -> Chunk:
        planned = (self._planned[ordinal] for ordinal in ordinals)
        drawn = ((site, replace(r, draws=draws(self._config, site.site_id, self._round))) for site, r in planned)
        return Chunk(self._round, tuple(drawn))
