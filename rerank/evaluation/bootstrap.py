"""The percentile bootstrap over conversations, as multiplicities: how often each conversation was drawn.

A statistic that takes a weight per row can then be computed for all draws at once, and two rankings compared on the
same draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Names = npt.NDArray[Any]
Statistic = Callable[[Floats], Floats]
"""Weights of rows, shape (b, n), to one figure for each draw, shape (b,)."""

_CELLS = 4_000_000
"""Weights of rows held at once; what bounds the memory where many turns were judged."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % bootstrap interval over conversations; NaN where it is not defined."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def rounded(self) -> list[float | None]:
        """Value, low and high with four digits, None for NaN: fit for JSON."""
        return [round(x, 4) if np.isfinite(x) else None for x in (self.value, self.low, self.high)]


class Bootstrap:
    """Draws of conversations, with replacement, as many as there are; the first row is the data itself.

    Attributes:
        names: The conversations, sorted; c of them.
        drawn: How often each was drawn, shape (1 + resamples, c); row 0 is all ones.
    """

    def __init__(self, conversations: Names, resamples: int = 2000, seed: int = 0) -> None:
        """`conversations`, shape (n,), may repeat names: each counts once."""
        self.names = np.unique(conversations)
        c = len(self.names)
        draws = np.random.default_rng(seed).integers(0, max(c, 1), (resamples if c else 0, c))
        self.drawn = np.ones((1 + len(draws), c))
        for row, draw in enumerate(draws, 1):
            self.drawn[row] = np.bincount(draw, minlength=c)

    def means(self, values: Floats, conversations: Names) -> Floats:
        """Mean of each column of `values` in every draw, shape (1 + resamples, k).

        Args:
            values: Shape (n, k), such as one row per site.
            conversations: Of each row, shape (n,).
        """
        index = np.searchsorted(self.names, conversations)
        sums, counts = np.zeros((len(self.names), values.shape[1])), np.zeros(len(self.names))
        np.add.at(sums, index, values)
        np.add.at(counts, index, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((self.drawn @ sums) / (self.drawn @ counts)[:, None])

    def statistic(self, of: Statistic, conversations: Names) -> Floats:
        """`of` the rows' weights, in every draw, shape (1 + resamples,)."""
        index = np.searchsorted(self.names, conversations)
        step = max(1, _CELLS // max(len(index), 1))
        parts = [of(self.drawn[start : start + step, index]) for start in range(0, len(self.drawn), step)]
        return np.concatenate(parts)


def estimate(drawn: Floats) -> Estimate:
    """The figure and the middle 95 % of its draws; draws where it is not defined are left out.

    Args:
        drawn: Shape (1 + resamples,), the figure itself first.
    """
    rest = drawn[1:][np.isfinite(drawn[1:])]
    low, high = np.quantile(rest, [0.025, 0.975]) if len(rest) else (np.nan, np.nan)
    return Estimate(float(drawn[0]), float(low), float(high))
