"""A linear probe (Alain & Bengio 2016): what the scorer's hidden states say of a turn, as log-odds of a follow-up.

The state of a turn is the mean, over its first tokens, of the residual stream after one layer, read with the whole
conversation before it. The likelihoods are what the last layer makes of it; a middle one still knows more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.errors import RulesError
from filters.features import STATE, Features
from filters.scores import is_number, numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

LAYER, LAYERS = 20, 30
"""The layer of the shipped scorer that is read, counted from 1, of how many. Chosen by cross-validation."""


def layer_at_depth(layers: int) -> int:
    """The layer of a scorer with so many that lies where `LAYER` lies in the shipped one."""
    return max(1, round(layers * LAYER / LAYERS))


@dataclass(frozen=True, slots=True)
class Probe:
    """Logistic regression on d numbers; what they were centered and scaled by is folded into the weights.

    Attributes:
        layer: After which layer of the scorer, counted from 1, the states are read.
        weights: d numbers.
        low, high: The log-odds of the turns it was learned from lie in these bounds; nothing is extrapolated beyond.
    """

    layer: int
    weights: tuple[float, ...]
    intercept: float
    low: float
    high: float

    def log_odds(self, features: Features) -> Matrix:
        """Shape (n,); NaN where the state is unknown.

        Raises:
            ValueError: The states are not d numbers.
        """
        if features.states is None:
            return np.full(len(features), np.nan)
        if features.states.shape[1] != len(self.weights):
            raise ValueError(
                f"`{STATE}` has {features.states.shape[1]} numbers a turn, the probe of the rules reads "
                f"{len(self.weights)}; another scorer measured it"
            )
        found = features.states @ np.array(self.weights) + self.intercept
        return np.asarray(np.clip(found, self.low, self.high), dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        """Numbers with six significant digits."""
        names = ("intercept", "low", "high")
        return {
            "layer": self.layer,
            **{name: float(f"{getattr(self, name):.6g}") for name in names},
            "weights": [float(f"{weight:.6g}") for weight in self.weights],
        }

    @classmethod
    def from_json(cls, data: Any, place: str) -> Probe:
        """Raises: RulesError with the place."""
        if not isinstance(data, dict):
            raise RulesError(f"{place} must be an object")
        layer, weights = data.get("layer"), data.get("weights")
        if not isinstance(layer, int) or isinstance(layer, bool) or layer < 1:
            raise RulesError(f"{place}.layer must be the number of a layer, counted from 1")
        if not isinstance(weights, list) or not weights:
            raise RulesError(f"{place}.weights must be a list of numbers")
        for name in ("intercept", "low", "high"):
            if not is_number(data.get(name)):
                raise RulesError(f"{place}.{name} must be a number")
        if data["low"] > data["high"]:
            raise RulesError(f"{place}.low is above high")
        return cls(
            layer,
            numbers(weights, len(weights), f"{place}.weights"),
            float(data["intercept"]),
            float(data["low"]),
            float(data["high"]),
        )
