"""p_genuine: the calibrated probability that a turn is a follow-up, from the learned score of that label.

Platt scaling (Platt 1999) on turns that were really sampled and held out; what it knows is how *those* generators fail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.errors import RulesError
from filters.scores import numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """p = sigmoid(slope · log-odds of the score + intercept).

    Attributes:
        slope, intercept: Fitted on held-out scores of sampled turns.
        replicates: The same on bootstrap resamples of the conversations.
        figures: Cross-validated AUC, F1, Brier score and calibration error with n and intervals, by source.
    """

    slope: float
    intercept: float
    replicates: tuple[tuple[float, float], ...]
    figures: dict[str, Any]

    def probability(self, score: Matrix) -> Matrix:
        """Of the score of follow_up, shape (n,), in 0..1."""
        return sigmoid(self.slope * log_odds(score) + self.intercept)

    def replicated(self, score: Matrix) -> Matrix:
        """The probability under each bootstrap replicate, shape (replicates, n)."""
        pairs = np.array(self.replicates)
        return sigmoid(pairs[:, :1] * log_odds(score) + pairs[:, 1:])

    def to_json(self) -> dict[str, Any]:
        """Numbers rounded to five places."""
        return {
            "slope": round(self.slope, 5),
            "intercept": round(self.intercept, 5),
            "replicates": [[round(a, 5), round(b, 5)] for a, b in self.replicates],
            "figures": self.figures,
        }

    @classmethod
    def from_json(cls, data: Any, place: str) -> Calibration:
        """Raises: RulesError with the place."""
        if not isinstance(data, dict):
            raise RulesError(f"{place} must be an object")
        (slope,) = numbers([data.get("slope")], 1, f"{place}.slope")
        (intercept,) = numbers([data.get("intercept")], 1, f"{place}.intercept")
        rows = data.get("replicates")
        if not isinstance(rows, list) or not rows:
            raise RulesError(f"{place}.replicates must be a list of pairs")
        pairs = [numbers(row, 2, f"{place}.replicates[{i}]") for i, row in enumerate(rows)]
        figures = data.get("figures", {})
        return cls(slope, intercept, tuple((a, b) for a, b in pairs), figures if isinstance(figures, dict) else {})


def log_odds(p: Matrix) -> Matrix:
    """ln(p / (1 - p)), bounded."""
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(p / (1 - p)), dtype=np.float64)


def sigmoid(x: Matrix) -> Matrix:
    """Logistic function without overflow."""
    result: Matrix = 0.5 * (1.0 + np.tanh(0.5 * x))
    return result
