"""p_genuine: the calibrated probability that a turn is a follow-up, from what two learned models make of it.

A linear score carries over to other generators, boosted trees know the judged ones better; their log-odds are weighed
by logistic regression, as in Platt scaling (Platt 1999), on turns that were really sampled and held out. What p_genuine
knows is how *those* generators fail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.checking import numbers
from filters.errors import RulesError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

Weights = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Calibration:
    """p = sigmoid(linear · log-odds of the linear score + boosted · log-odds of the trees + intercept).

    Attributes:
        weights: `linear, boosted, intercept`, fitted on held-out scores of sampled turns.
        replicates: The same on bootstrap resamples of the conversations.
        figures: Cross-validated AUC, F1, Brier score and calibration error with n and intervals, by source.
    """

    weights: Weights
    replicates: tuple[Weights, ...]
    figures: dict[str, Any]

    def probability(self, odds: Matrix) -> Matrix:
        """Args: log-odds by both, shape (n, 2). Returns: shape (n,), in 0..1."""
        return sigmoid(odds @ np.array(self.weights[:2]) + self.weights[2])

    def replicated(self, odds: Matrix) -> Matrix:
        """The probability under each bootstrap replicate, shape (replicates, n)."""
        drawn = np.array(self.replicates)
        return sigmoid(drawn[:, :2] @ odds.T + drawn[:, 2:])

    def to_json(self) -> dict[str, Any]:
        """Numbers rounded to five places."""
        return {
            "weights": [round(x, 5) for x in self.weights],
            "replicates": [[round(x, 5) for x in row] for row in self.replicates],
            "figures": self.figures,
        }

    @classmethod
    def from_json(cls, data: Any, place: str) -> Calibration:
        """Raises: RulesError with the place."""
        if not isinstance(data, dict):
            raise RulesError(f"{place} must be an object")
        rows = data.get("replicates")
        if not isinstance(rows, list) or not rows:
            raise RulesError(f"{place}.replicates must be a list of weights")
        figures = data.get("figures", {})
        return cls(
            _weights(data.get("weights"), f"{place}.weights"),
            tuple(_weights(row, f"{place}.replicates[{index}]") for index, row in enumerate(rows)),
            figures if isinstance(figures, dict) else {},
        )


def _weights(value: Any, place: str) -> Weights:
    linear, boosted, intercept = numbers(value, 3, place)
    return linear, boosted, intercept


def log_odds(p: Matrix) -> Matrix:
    """ln(p / (1 - p)), bounded."""
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(p / (1 - p)), dtype=np.float64)


def sigmoid(x: Matrix) -> Matrix:
    """Logistic function without overflow."""
    result: Matrix = 0.5 * (1.0 + np.tanh(0.5 * x))
    return result
