"""What the best of N candidates is worth, exactly: the mean over all ways to draw N of a site's candidates.

A ranking is a score per turn. Equal scores are ties, broken at random: the mean over that, too, is exact. So chance is
the score that is the same for all, and the oracle the one that knows what the judge said.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import comb

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]
ALL = 0
"""Stands for N in `best_of`: all of the site's candidates, however many."""


def best_of(sites: pl.Series, score: Floats, value: Floats, ns: Sequence[int]) -> Floats:
    """Expected value of the turn with the highest score among N candidates drawn without replacement.

    Args:
        sites: Of each turn, shape (n,).
        score: Higher is better; NaN comes last. Shape (n,).
        value: Such as 1 for genuine. Shape (n,).
        ns: Each N, or `ALL`. A site with fewer candidates gives all it has.

    Returns:
        Shape (sites in sorted order, len(ns)).
    """
    ordered = _ordered(sites, score, value)
    sizes = ordered["size"].to_numpy()
    chance = np.zeros((len(ordered), len(ns)))
    for column, n in enumerate(ns):
        for size in np.unique(sizes):
            here = sizes == size
            taken = min(n, int(size)) if n != ALL else int(size)
            chance[here, column] = _first_place(int(size), taken)[ordered["place"].to_numpy()[here]]
    return _summed(ordered, chance * ordered["value"].to_numpy()[:, None])


def ndcg(sites: pl.Series, score: Floats, grade: Floats) -> Floats:
    """Normalised discounted cumulative gain of each site's order (Järvelin & Kekäläinen 2002), gain 2^grade - 1.

    Ties count as the mean of their orders (McSherry & Najork 2008). NaN for a site without a grade above 0.

    Returns:
        Shape (sites in sorted order,).
    """
    gain = 2**grade - 1

    def dcg(by: Floats) -> Floats:
        ordered = _ordered(sites, by, gain)
        discounted = ordered["value"].to_numpy() / np.log2(ordered["place"].to_numpy() + 2)
        return _summed(ordered, discounted[:, None])[:, 0]

    best = dcg(gain)
    return np.asarray(np.divide(dcg(score), best, out=np.full(len(best), np.nan), where=best > 0))


def _ordered(sites: pl.Series, score: Floats, value: Floats) -> pl.DataFrame:
    """Rows by site and place in it, best first; `value` is the mean of those that tie."""
    table = pl.DataFrame({"site": sites, "score": np.where(np.isnan(score), -np.inf, score), "value": value})
    return table.sort("site", "score", descending=[False, True], maintain_order=True).with_columns(
        pl.col("value").mean().over("site", "score"),
        pl.int_range(pl.len()).over("site").alias("place"),
        pl.len().over("site").alias("size"),
    )


def _summed(ordered: pl.DataFrame, values: Floats) -> Floats:
    starts = np.flatnonzero(ordered["place"].to_numpy() == 0)
    return np.asarray(np.add.reduceat(values, starts, axis=0)) if len(starts) else np.zeros((0, values.shape[1]))


@lru_cache(maxsize=4096)
def _first_place(size: int, n: int) -> Floats:
    """Chance of each place to be the best of n drawn from `size`: it is drawn, the other n-1 come from behind it."""
    return np.array([comb(size - 1 - place, n - 1) / comb(size, n) for place in range(size)])
