"""Figures of results, gathered part by part, so that memory does not grow with them.

Knows the tables of `selfplay.results`; knows nothing of pages.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from selfplay.choosing.selection import UNBARRED
from selfplay.summary import share_of

ROUND = "round"
GROUPS = (ROUND, "source", "domain", "category", "topic", "task", "dataset", "language", "lang")
"""Columns of the input by which labels are counted wherever rows carry them."""
VALUES = 24
"""Values that a column may have to be counted by; an id has more."""
BINS = 20
"""Of groundedness."""
STATES = ("chosen", "passed, not chosen", "flagged")
CHOSEN = "chosen"
UNJUDGED = "not judged"
MAY_BE_CHOSEN = pl.col("selected").fill_null(False) | pl.col("rejected_for").is_in(UNBARRED)
"""No rule flagged it, and nothing else barred it."""


@dataclass(slots=True)
class AtN:
    """What the first N candidates of each site gave.

    Attributes:
        served: Sites with a candidate that may be chosen.
        best: Sum over those of the highest groundedness among such candidates.
        tokens: Tokens generated for them, at all sites.
    """

    served: int = 0
    best: float = 0.0
    tokens: int = 0


@dataclass(slots=True)
class Tally:
    """Counts over all parts that were added.

    Attributes:
        by: Columns of the input to count labels by, beside `GROUPS`.
        keys: A number in 0..1 for each site, by its id, in reading order.
        labels: Turns by (column, value, label); the column None holds all.
        chosen: Turns that were chosen, by label.
        outcomes: Turns by `chosen` or what they were rejected for.
        rules: Turns by (label, rule).
        grounded: Turns by state and bin of groundedness.
        at: By number of candidates.
        most, fewest: Candidates of a site.
    """

    by: Sequence[str] = ()
    sites: int = 0
    turns: int = 0
    passed: int = 0
    truncated: int = 0
    tokens: int = 0
    served: int = 0
    barren: int = 0
    most: int = 0
    fewest: int = 0
    keys: list[npt.NDArray[np.float32]] = field(default_factory=list)
    labels: Counter[tuple[str | None, str, str]] = field(default_factory=Counter)
    chosen: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    rules: Counter[tuple[str, str]] = field(default_factory=Counter)
    grounded: dict[str, npt.NDArray[np.int64]] = field(
        default_factory=lambda: {state: np.zeros(BINS, np.int64) for state in STATES}
    )
    at: dict[int, AtN] = field(default_factory=dict)
    _conversations: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    _dropped: set[str] = field(default_factory=set)

    def add(self, sites: pl.DataFrame, turns: pl.DataFrame) -> None:
        """Takes in a part; its sites are whole."""
        if turns.is_empty():
            return
        turns = turns.with_columns(outcome=outcome(), label=pl.col("label").fill_null(UNJUDGED))
        self.keys.append(np.array([share_of(key) for key in sites["site_id"]], np.float32))
        self._conversations.append(sites["conversation_id"].unique().hash().to_numpy())
        self.sites += len(sites)
        self.turns += len(turns)
        self.passed += int(turns["genuine"].sum() or 0)
        self.truncated += int((turns["finish_reason"] == "length").sum() or 0)
        self.tokens += int(turns["completion_tokens"].sum() or 0)
        self.outcomes.update(dict(turns.group_by("outcome").len().iter_rows()))
        self.chosen.update(dict(turns.filter("selected").group_by("label").len().iter_rows()))
        fired = turns.filter(pl.col("rule").is_not_null()).group_by("label", "rule").len()
        self.rules.update({(label, rule): count for label, rule, count in fired.iter_rows()})
        per_site = turns.group_by("site_id").agg(pl.len(), pl.col("selected", "genuine").any())
        self.served += int(per_site["selected"].sum() or 0)
        self.barren += int((~per_site["genuine"]).sum() or 0)
        most, fewest = per_site.select(pl.col("len").max(), pl.col("len").min().alias("min")).row(0)
        self.most, self.fewest = max(self.most, most), min(self.fewest or fewest, fewest)
        self._add_labels(sites, turns)
        self._add_groundedness(turns)
        self._add_first(turns)

    @property
    def conversations(self) -> int:
        """How many different ones there are."""
        return len(np.unique(np.concatenate(self._conversations))) if self._conversations else 0

    def share_for(self, count: int) -> float:
        """Such a share that about `count` sites have a key below it."""
        if self.sites <= count:
            return 1.0
        return float(np.partition(np.concatenate(self.keys), count)[count])

    def columns(self) -> list[str]:
        """Those by which labels were counted, and that have something to compare, or were asked for."""
        values: dict[str, set[str]] = {}
        for column, value, _ in self.labels:
            if column is not None:
                values.setdefault(column, set()).add(value)
        return [name for name, found in values.items() if len(found) > 1 or name in self.by]

    def values(self, column: str | None) -> list[str]:
        """Values of a column, the most frequent first, rounds and temperatures by size."""
        counts: Counter[str] = Counter()
        for (name, value, _), count in self.labels.items():
            if name == column:
                counts[value] += count
        if column == "temperature" or (column == ROUND and all(value.isdecimal() for value in counts)):
            return sorted(counts, key=lambda value: float(value.removeprefix("T=")))
        return sorted(counts, key=lambda value: (-counts[value], value))

    def _add_labels(self, sites: pl.DataFrame, turns: pl.DataFrame) -> None:
        temperature = pl.format("T={}", pl.col("temperature").map_elements(lambda t: f"{t:g}", pl.String))
        found = turns.select("site_id", "label", model=pl.col("model"), temperature=temperature)
        found = found.join(self._groups(sites), on="site_id", how="left")
        self.labels.update({(None, "", label): count for label, count in found.group_by("label").len().iter_rows()})
        for column in found.columns[2:]:
            if column in self._dropped:
                continue
            counts = found.filter(pl.col(column).is_not_null()).group_by(column, "label").len()
            self.labels.update({(column, value, label): count for value, label, count in counts.iter_rows()})
            if column not in ("model", "temperature") and len(self.values(column)) > VALUES:
                self._dropped.add(column)
                for key in [key for key in self.labels if key[0] == column]:
                    del self.labels[key]

    def _groups(self, sites: pl.DataFrame) -> pl.DataFrame:
        columns: dict[str, list[str | None]] = {name: [] for name in dict.fromkeys((*GROUPS, *self.by))}
        for text in sites["extra"]:
            extra: Mapping[str, Any] = json.loads(text or "{}")
            for name, values in columns.items():
                value = extra.get(name)
                values.append(str(value) if isinstance(value, str | int | float) else None)
        told = {name: pl.Series(values, dtype=pl.String) for name, values in columns.items() if any(values)}
        told = {name: values for name, values in told.items() if name not in ("model", "temperature", "label")}
        return sites.select("site_id").with_columns(**told)

    def _add_groundedness(self, turns: pl.DataFrame) -> None:
        selected, genuine = (pl.col(name).fill_null(False) for name in ("selected", "genuine"))
        states = dict(zip(STATES, (selected, genuine & ~selected, ~genuine & ~selected), strict=True))
        for state, which in states.items():
            found = turns.filter(which & pl.col("groundedness").is_finite())["groundedness"].to_numpy()
            self.grounded[state] += np.histogram(found, BINS, (0.0, 1.0))[0]

    def _add_first(self, turns: pl.DataFrame) -> None:
        # In the order of drawing; candidates of several temperatures take turns.
        drawn = turns.sort("sample", "temperature").with_columns(place=pl.int_range(pl.len()).over("site_id"))
        for n in powers(self.most):
            if n not in self.at:  # no site so far has more than the highest known, so all of theirs count
                self.at[n] = self._last()
        self.at = {n: self.at[n] for n in powers(self.most)}
        for n, known in self.at.items():
            first = drawn.filter(pl.col("place") < n)
            best = first.filter(MAY_BE_CHOSEN).group_by("site_id").agg(pl.col("groundedness").max())
            known.served += len(best)
            known.best += float(best["groundedness"].sum() or 0)
            known.tokens += int(first["completion_tokens"].sum() or 0)

    def _last(self) -> AtN:
        """A copy of what the highest number so far gave."""
        if not self.at:
            return AtN()
        last = self.at[max(self.at)]
        return AtN(last.served, last.best, last.tokens)


def outcome() -> pl.Expr:
    """`chosen`, or why not."""
    return (
        pl.when(pl.col("selected").fill_null(False))
        .then(pl.lit(CHOSEN))
        .otherwise(pl.col("rejected_for").fill_null(UNJUDGED))
    )


def powers(most: int) -> list[int]:
    """1, 2, 4 … and `most` itself."""
    found = [1 << i for i in range(most.bit_length()) if 1 << i < most]
    return [*found, most] if most else []
