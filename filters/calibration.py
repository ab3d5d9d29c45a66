"""p_genuine: the calibrated probability that a turn is a follow-up, from what two learned models make of it.

A linear score carries over to other generators, boosted trees know the judged ones better; their log-odds are weighed
by logistic regression, as in Platt scaling (Platt 1999), on turns that were really sampled and held out. What p_genuine
knows is how *those* generators fail. Where the scorer's hidden state is known, the probe's log-odds are weighed too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.errors import RulesError
from filters.scores import numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

Weights = tuple[float, ...]
ODDS, PROBED = 2, 3
"""Log-odds that are weighed: of the linear score and of the trees; and of the probe too."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """p = sigmoid(linear · log-odds of the linear score + boosted · log-odds of the trees + intercept).

    Attributes:
        weights: `linear, boosted, intercept`, fitted on held-out scores of sampled turns.
        replicates: The same on bootstrap resamples of the conversations.
        figures: Cross-validated AUC, F1, Brier score and calibration error with n and intervals, by source.
        probed: The like with the probe, `linear, boosted, probe, intercept`, for turns whose state is known; its
            figures are of such turns.
    """

    weights: Weights
    replicates: tuple[Weights, ...]
    figures: dict[str, Any]
    probed: Calibration | None = None

    def probability(self, odds: Matrix) -> Matrix:
        """The probability of each turn, shape (n,), in 0..1.

        Args:
            odds: Log-odds by both, shape (n, 2), or by the probe too, shape (n, 3), NaN where it does not know.
        """
        found: Matrix = self._weighed(odds, [self.weights], [self.probed.weights] if self.probed else [])[0]
        return found

    def replicated(self, odds: Matrix) -> Matrix:
        """The probability under each bootstrap replicate, shape (replicates, n)."""
        return self._weighed(odds, self.replicates, self.probed.replicates if self.probed else ())

    def _weighed(self, odds: Matrix, two: Sequence[Weights], three: Sequence[Weights]) -> Matrix:
        found = _mixed(odds[:, : len(self.weights) - 1], two)
        if three and odds.shape[1] == PROBED:
            known = np.isfinite(odds[:, -1])
            found[:, known] = _mixed(odds[known], three)
        return found

    def to_json(self) -> dict[str, Any]:
        """Numbers rounded to five places."""
        return {
            "weights": [round(x, 5) for x in self.weights],
            "replicates": [[round(x, 5) for x in row] for row in self.replicates],
            "figures": self.figures,
            **({"probed": self.probed.to_json()} if self.probed else {}),
        }

    @classmethod
    def from_json(cls, data: Any, place: str, odds: int = ODDS) -> Calibration:
        """Args: how many log-odds are weighed. Raises: RulesError with the place."""
        if not isinstance(data, dict):
            raise RulesError(f"{place} must be an object")
        rows = data.get("replicates")
        if not isinstance(rows, list) or not rows:
            raise RulesError(f"{place}.replicates must be a list of weights")
        figures, probed = data.get("figures", {}), None
        if odds == ODDS and data.get("probed") is not None:
            probed = cls.from_json(data["probed"], f"{place}.probed", PROBED)
            if len(probed.replicates) != len(rows):
                raise RulesError(f"{place}.probed.replicates must be as many as without the probe, {len(rows)}")
        return cls(
            numbers(data.get("weights"), odds + 1, f"{place}.weights"),
            tuple(numbers(row, odds + 1, f"{place}.replicates[{index}]") for index, row in enumerate(rows)),
            figures if isinstance(figures, dict) else {},
            probed,
        )


def _mixed(odds: Matrix, weights: Sequence[Weights]) -> Matrix:
    """Args: k log-odds, shape (n, k), and m times k + 1 weights. Returns: shape (m, n)."""
    drawn = np.array(weights)
    return sigmoid(drawn[:, :-1] @ odds.T + drawn[:, -1:])


def log_odds(p: Matrix) -> Matrix:
    """ln(p / (1 - p)), bounded."""
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(p / (1 - p)), dtype=np.float64)


def sigmoid(x: Matrix) -> Matrix:
    """Logistic function without overflow."""
    result: Matrix = 0.5 * (1.0 + np.tanh(0.5 * x))
    return result
