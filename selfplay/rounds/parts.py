"""The candidates of sites that are not whole yet: the parts in `rounds/`, and their way into parts of the run.

Every row is one candidate of one round of one site. A site may have rows in several parts, of one round in one part
only. Knows rounds and verdicts; nothing of engines, or of what is to be drawn next.
"""

from __future__ import annotations

import itertools
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence

import polars as pl

from rerank.diversity import same_text
from selfplay.choosing.selection import UNBARRED
from selfplay.config import SampleConfig, round_of
from selfplay.core import Candidate
from selfplay.models import published_as
from selfplay.pipeline import Judge
from selfplay.plan import Planned
from selfplay.rounds.cohorts import Key
from selfplay.runs import Ordinals, Run
from selfplay.signals.measure import NUMBERS
from selfplay.tables import SAMPLED_STATE, TURNS, sites_table, turns_table

_ORDER = ("ordinal", "temperature", "sample")


def recover(run: Run) -> None:
    """Takes back what a kill left half moved out of `rounds/`. To be called before anything is judged."""
    held: set[int] = set()
    for number in run.rounds.parts("sampled"):
        held.update(run.rounds.read("sampled", number, ["ordinal"])["ordinal"])
    for number in list(run.unfinished()):
        if held.issuperset(run.read("sampled", number, ["ordinal"])["ordinal"]):
            run.remove(number)


class RoundParts:
    """The parts in `rounds/` of an open run, and which sites they hold."""

    def __init__(self, run: Run, config: SampleConfig) -> None:
        self._run, self._config, self._store = run, config, run.rounds
        self._store.make()
        self._numbers = itertools.count(1 + max(self._store.parts("sampled"), default=-1))
        self._final_numbers = itertools.count(1 + max(run.parts("sampled"), default=-1))
        self._held: dict[int, set[int]] = {}  # sites of each part that are not whole

    def resume(self, whole: Ordinals) -> Iterator[tuple[int, set[Key], bool]]:
        """What earlier starts left: number, sites with their rounds, whether judged. Removes what is whole by now."""
        unjudged = set(self._store.unfinished())
        for number in self._store.parts("sampled"):
            rows = self._store.read("sampled", number, list(_ORDER))
            keys = {
                (ordinal, round_of(self._config, t, sample))
                for ordinal, t, sample in rows.iter_rows()
                if ordinal not in whole
            }
            if keys:
                self._held[number] = {ordinal for ordinal, _ in keys}
                yield number, keys, number not in unjudged
            else:
                self._store.remove(number)

    def write(self, sampled: Sequence[tuple[Planned, Sequence[Candidate]]]) -> int:
        """Writes a part as sampled; returns its number."""
        number = next(self._numbers)
        # Contexts first: a part counts as sampled once its candidates are there, and then both must be.
        self._store.write("sites", number, sites_table(planned for planned, _ in sampled))
        rows = ((site, candidates) for (site, _), candidates in sampled)
        model = published_as(self._config.model)
        self._store.write("sampled", number, turns_table(rows, model, self._config.primed))
        self._held[number] = {site.ordinal for (site, _), _ in sampled}
        return number

    def found(self, number: int) -> dict[Key, frozenset[str]]:
        """The distinct turns that may be chosen, of each round in a part that has been judged."""
        found: dict[Key, set[str]] = defaultdict(set)
        rows = self._store.read("turns", number, [*_ORDER, "turn", "rejected_for"])
        for ordinal, t, sample, turn, reason in rows.iter_rows():
            texts = found[ordinal, round_of(self._config, t, sample)]
            if reason is None or reason in UNBARRED:
                texts.add(same_text(turn))
        return {key: frozenset(texts) for key, texts in found.items()}

    def sources(self, ordinals: frozenset[int]) -> tuple[int, list[int]]:
        """For `merge`: the number of a new part of the run, and the parts that hold rounds of these sites."""
        return next(self._final_numbers), [number for number, held in sorted(self._held.items()) if held & ordinals]

    def merge(self, number: int, ordinals: frozenset[int], sources: Sequence[int], judge: Judge) -> None:
        """Writes a part of the run from all rounds of these sites, ranked together. May run in another thread."""

        def gathered(kind: str) -> pl.DataFrame:
            tables = (self._store.read(kind, source) for source in sources)
            kept = pl.col("ordinal").is_in(list(ordinals))
            return pl.concat((table.filter(kept) for table in tables), how="diagonal_relaxed")

        sites = gathered("sites").unique("site_id", keep="first").sort("ordinal")
        self._run.write("sites", number, sites)
        sampled = gathered("sampled").sort(_ORDER)
        self._run.write("sampled", number, sampled.drop(SAMPLED_STATE, strict=False))
        # Measured once is enough: labels and ranks are made anew from the signals that the rounds have.
        measured = {*TURNS, *NUMBERS}
        turns = gathered("turns").sort(_ORDER)
        turns = turns.select(c for c in turns.columns if c in measured)
        if SAMPLED_STATE in sampled.columns:
            turns = turns.join(sampled.select(*_ORDER, SAMPLED_STATE), on=_ORDER, how="left", maintain_order="left")
        self._run.write("turns", number, judge(turns, sites))

    def forget(self, ordinals: frozenset[int]) -> None:
        """Removes the parts that hold nothing but sites that are whole."""
        for number, held in list(self._held.items()):
            held -= ordinals
            if not held:
                del self._held[number]
                self._store.remove(number)

    def close(self) -> None:
        """Removes the folder if no site is left in it."""
        if not self._store.parts("sampled"):
            shutil.rmtree(self._store.folder)
