"""Cross-validation by conversation: no turn is ranked by weights that saw another turn of its conversation."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import polars as pl

from rerank.folds import assign_folds
from rerank.learn import common_words, fit, spoken_turns
from rerank.probe import Probe
from rerank.rank import rank
from rerank.weights import TIER_SETS, Weights


class CrossValidation:
    """Ranks with weights learned in the other folds. What all tier sets share, the probe of the states with it, is
    prepared once."""

    def __init__(self, table: pl.DataFrame, fold: pl.Series, by: str = "site_id", **options: Any) -> None:
        """Prepares the turns of every fold.

        Args:
            table: Judged turns as `rerank.learn.train` takes them.
            fold: Of each row.
            by: The sites.
            options: For `rerank.learn.fit`.
        """
        self._table = table.with_row_index("_row")
        self._fold = fold
        self._by = by
        self._options = options
        self._prepared: dict[int, tuple[frozenset[str], pl.DataFrame, Probe | None]] = {}
        for number in sorted(fold.unique().to_list()):
            others = table.filter(fold != number)
            common = common_words(others)
            self._prepared[number] = common, *spoken_turns(others, common)

    def rank(
        self, without: Collection[str] = (), only: pl.Series | None = None, sets: Collection[str] = TIER_SETS
    ) -> pl.DataFrame:
        """The table as `rerank.rank` gives it, rows in their order.

        Args:
            without: Signals that the weights are learned without.
            only: Flags of the rows that are wanted; the others are learned from all the same.
            sets: Tier sets that weights are learned for, where it is known which of them rank these rows.
        """
        parts = []
        for number, (common, spoken, probe) in self._prepared.items():
            wanted = self._fold == number if only is None else (self._fold == number) & only
            weights = Weights(fit(spoken, without=without, sets=sets, **self._options), common, probe=probe)
            parts.append(rank(self._table.filter(wanted), weights, self._by))
        return pl.concat(parts).sort("_row").drop("_row")


def cross_validate(
    table: pl.DataFrame, folds: int = 5, seed: int = 0, by: str = "site_id", **options: Any
) -> pl.DataFrame:
    """Ranks every turn with weights learned from the other folds' sites; `options` go to `rerank.learn.fit`."""
    return CrossValidation(table, assign_folds(table[by], folds, seed), by, **options).rank()
