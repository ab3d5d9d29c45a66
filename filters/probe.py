"""A linear probe (Alain & Bengio 2016, arXiv 1610.01644): what the scorer's hidden state says for each label.

The state of a turn is the mean, over its first tokens, of the residual stream after one layer, read with the whole
conversation before it. The likelihoods are what the last layer makes of it; a middle one still knows more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.checking import by_label, numbers, short
from filters.errors import RulesError
from filters.features import STATE, Features
from filters.labels import LABELS

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
    """What d numbers add to the log-odds of each label; 0 on average over the turns it was learned from.

    Attributes:
        layer: After which layer of the scorer, counted from 1, the states are read.
        weights: One row of d per label, in the order of `LABELS`.
        offsets: One per label; what the numbers were centered by is folded into them.
        low, high: Per label, bounds of what the probe said in training; nothing is extrapolated beyond.
    """

    layer: int
    weights: tuple[tuple[float, ...], ...]
    offsets: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def known(self, features: Features) -> NDArray[np.bool_]:
        """Which rows have a state; shape (n,)."""
        if features.states is None:
            return np.zeros(len(features), dtype=np.bool_)
        return np.asarray(np.isfinite(features.states[:, 0]), dtype=np.bool_)

    def logits(self, features: Features) -> Matrix:
        """Shape (n, 9); 0 where the state is unknown.

        Raises:
            ValueError: The states are not d numbers.
        """
        found = np.zeros((len(features), len(LABELS)))
        known = self.known(features)
        if features.states is None or not known.any():
            return found
        if features.states.shape[1] != len(self.weights[0]):
            raise ValueError(
                f"`{STATE}` has {features.states.shape[1]} numbers a turn, the probe of the rules reads "
                f"{len(self.weights[0])}; another scorer measured it"
            )
        said = features.states[known] @ np.array(self.weights).T + np.array(self.offsets)
        found[known] = np.clip(said, self.low, self.high)
        return found

    def to_json(self) -> dict[str, Any]:
        """Numbers with six significant digits."""
        return {
            "layer": self.layer,
            **{name: short(getattr(self, name)) for name in ("offsets", "low", "high")},
            "weights": {label: short(row) for label, row in zip(LABELS, self.weights, strict=True)},
        }

    @classmethod
    def from_json(cls, data: Any, place: str) -> Probe:
        """Raises: RulesError with the place."""
        if not isinstance(data, dict):
            raise RulesError(f"{place} must be an object")
        layer, weights = data.get("layer"), data.get("weights")
        if not isinstance(layer, int) or isinstance(layer, bool) or layer < 1:
            raise RulesError(f"{place}.layer must be the number of a layer, counted from 1")
        first = next(iter(weights.values()), None) if isinstance(weights, dict) else None
        if not isinstance(first, list) or not first:
            raise RulesError(f"{place}.weights must have one list for each label")
        offsets, low, high = (
            numbers(data.get(name), len(LABELS), f"{place}.{name}") for name in ("offsets", "low", "high")
        )
        if any(least > most for least, most in zip(low, high, strict=True)):
            raise RulesError(f"{place}.low is above high")
        return cls(layer, by_label(weights, len(first), f"{place}.weights", LABELS), offsets, low, high)
