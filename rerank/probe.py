"""A linear probe (Alain & Bengio 2016, arXiv 1610.01644) of what a language model's hidden states say of a turn.

The state of a turn is the mean over its tokens of the residual stream after one middle layer, read with the whole
conversation before it. The likelihoods are what the last layer makes of it; here the grade is read off directly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rerank.errors import WeightsError
from rerank.numbers import floats, number, short

Floats = npt.NDArray[np.float64]
States = npt.NDArray[np.float32]
STATE = "turn_state"
"""The column of states: a list of d numbers, null where unknown."""
GRADE = "state_grade"
"""The column that a probe makes of it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Log-odds that are linear in d numbers; what they were centred and scaled by is folded into the weights.

    Attributes:
        weights: d numbers.
        low, high: The log-odds of the turns it was learned from lie in these bounds; nothing is extrapolated beyond.
        layer: After which layer of the scorer, counted from 1, the states are read; None if learning was not told.
    """

    weights: tuple[float, ...]
    intercept: float
    low: float
    high: float
    layer: int | None = None

    def log_odds(self, states: States) -> Floats:
        """Shape (n,), NaN for a row of NaN.

        Args:
            states: Shape (n, d).

        Raises:
            ValueError: There are not d numbers.
        """
        if states.shape[1] != len(self.weights):
            raise ValueError(
                f"`{STATE}` has {states.shape[1]} numbers a turn, the probe of the weights reads {len(self.weights)}; "
                "another scorer measured it"
            )
        # Not `@`: what a fast product gives for a row depends, in the last bit, on the rows beside it, and equal turns
        # must tie.
        found = np.einsum("ij,j->i", states, np.array(self.weights)) + self.intercept
        return np.asarray(np.clip(found, self.low, self.high), dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        """For a weights file; `from_json` is its inverse, but for digits after the sixth."""
        return {
            "layer": self.layer,
            "intercept": short(self.intercept),
            "low": short(self.low),
            "high": short(self.high),
            "weights": [short(weight) for weight in self.weights],
        }

    @classmethod
    def from_json(cls, raw: Any) -> Probe:
        """Raises WeightsError with the place."""
        if not isinstance(raw, dict):
            raise WeightsError("`probe` must be an object")
        layer = raw.get("layer")
        if layer is not None and (isinstance(layer, bool) or not isinstance(layer, int) or layer < 1):
            raise WeightsError(f"probe.layer: {layer!r} is not the number of a layer, counted from 1")
        weights = floats(raw.get("weights"), "probe.weights")
        if not weights:
            raise WeightsError("probe.weights is empty")
        intercept, low, high = (number(raw.get(name), f"probe.{name}") for name in ("intercept", "low", "high"))
        if low > high:
            raise WeightsError("probe.low is above high")
        return cls(weights, intercept, low, high, layer)


def read_states(column: pl.Series) -> States | None:
    """float32 of shape (n, d), all NaN in a row whose state is null or not finite; None where no row has one.

    Raises:
        ValueError: They are no numbers, or not equally many in each row.
    """
    if column.null_count() == len(column):
        return None
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    inner = column.dtype.inner if isinstance(column.dtype, pl.List) else None
    if inner is None or not inner.is_numeric():
        raise ValueError(f"`{STATE}` must be a list of numbers in each row, not {column.dtype}")
    given = (column.list.len() > 0).fill_null(False)
    widths = sorted(column.filter(given).list.len().unique().to_list())
    if not widths:
        return None
    if len(widths) > 1:
        raise ValueError(
            f"`{STATE}` has {widths[0]} numbers in one row and {widths[-1]} in another; one scorer has one"
        )
    states = np.full((len(column), widths[0]), np.nan, dtype=np.float32)
    states[given.to_numpy()] = column.filter(given).explode().cast(pl.Float32).to_numpy().reshape(-1, widths[0])
    states[~np.isfinite(states).all(axis=1)] = np.nan
    return states


def state_grades(table: pl.DataFrame, probe: Probe) -> pl.Series:
    """The column `state_grade`: log-odds, null where the state is unknown.

    Raises:
        ValueError: The column `turn_state` does not hold what the probe reads.
    """
    states = read_states(table[STATE]) if STATE in table.columns else None
    if states is None:
        return pl.Series(GRADE, [None] * len(table), dtype=pl.Float64)
    return pl.Series(GRADE, probe.log_odds(states)).fill_nan(None)
