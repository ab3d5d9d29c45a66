"""p_genuine: the calibrated probability that a turn is a follow-up. A small logistic model that numpy evaluates.

Learned by `filters.learn` from turns that were really sampled; what it knows is how *those* generators fail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.errors import RulesError
from filters.features import FEATURES, Features

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLAGGED = "flagged"
"""Input beside the features: 1 where a rule fired. The model so learns how often the rules are wrong."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Logistic regression over k standardised inputs.

    Attributes:
        inputs: k feature names, `flagged` among them.
        low, high: Inputs are clipped to this range of the training turns first, so that nothing is extrapolated far.
        center, scale: Then (value - center) / scale; an unknown optional input counts as its center.
        weights: k slopes and the intercept.
        replicates: The same (each k + 1), trained on bootstrap resamples of the conversations.
        figures: Cross-validated AUC, Brier score and calibration error with n and intervals, by source.
    """

    inputs: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    replicates: tuple[tuple[float, ...], ...]
    figures: dict[str, Any]

    def design(self, features: Features, flagged: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Standardised inputs with a column of ones, shape (n, k + 1); NaN where a needed signal is unknown."""
        columns = [flagged.astype(float) if name == FLAGGED else features.values[name] for name in self.inputs]
        raw = np.column_stack(columns)
        optional = np.array([name == "cut" for name in self.inputs])
        raw = np.where(np.isnan(raw) & optional, np.array(self.center), raw)
        clipped = np.clip(raw, np.array(self.low), np.array(self.high))
        standard = (clipped - np.array(self.center)) / np.array(self.scale)
        return np.column_stack([standard, np.ones(len(raw))])

    def probability(self, design: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shape (n,), in 0..1."""
        return sigmoid(design @ np.array(self.weights))

    def replicated(self, design: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability under each bootstrap replicate, shape (replicates, n)."""
        return sigmoid(np.array(self.replicates) @ design.T)

    def to_json(self) -> dict[str, Any]:
        """Numbers rounded to six places."""

        def short(values: tuple[float, ...]) -> list[float]:
            return [round(value, 6) for value in values]

        return {
            "inputs": list(self.inputs),
            **{name: short(getattr(self, name)) for name in ("low", "high", "center", "scale", "weights")},
            "replicates": [short(row) for row in self.replicates],
            "figures": self.figures,
        }

    @classmethod
    def from_json(cls, data: Any, place: str) -> Calibration:
        """Raises: RulesError with the place."""
        if not isinstance(data, dict):
            raise RulesError(f"{place} must be an object")
        inputs = data.get("inputs")
        if not isinstance(inputs, list) or not inputs:
            raise RulesError(f"{place}.inputs must list features")
        for name in inputs:
            if not isinstance(name, str) or (name != FLAGGED and name not in FEATURES):
                raise RulesError(f"{place}.inputs: no feature {name!r}")
        k = len(inputs)
        ranges = {name: _numbers(data.get(name), k, f"{place}.{name}") for name in ("low", "high", "center", "scale")}
        if any(value <= 0 for value in ranges["scale"]):
            raise RulesError(f"{place}.scale must be above 0")
        rows = data.get("replicates")
        if not isinstance(rows, list) or not rows:
            raise RulesError(f"{place}.replicates must be a list of weights")
        figures = data.get("figures", {})
        return cls(
            inputs=tuple(inputs),
            **ranges,
            weights=_numbers(data.get("weights"), k + 1, f"{place}.weights"),
            replicates=tuple(_numbers(row, k + 1, f"{place}.replicates[{i}]") for i, row in enumerate(rows)),
            figures=figures if isinstance(figures, dict) else {},
        )


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logistic function without overflow."""
    result: NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * x))
    return result


def _numbers(value: Any, length: int, place: str) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != length:
        raise RulesError(f"{place} must be a list of {length} numbers")
    if not all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in value):
        raise RulesError(f"{place} holds something that is not a number")
    return tuple(float(x) for x in value)
