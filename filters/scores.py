"""A learned score per label, linear in the features, so that every turn's score can be taken apart.

Rules may test it (`score_off_topic >= 0.5`) where no readable conjunction tells; `p_genuine` is calibrated from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.checking import by_label, numbers, short
from filters.errors import RulesError
from filters.features import FEATURES, STATE, Features
from filters.labels import LABELS
from filters.probe import Probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

VIEWS = 3
"""A feature is seen three ways: as it is, its logarithm, and whether it is above 0. Counts need the latter two."""


def score_name(label: str) -> str:
    """Name under which a rule tests the score of a label."""
    return f"score_{label}"


@dataclass(frozen=True, slots=True)
class Scores:
    """Multinomial logistic regression over k features, each clipped to the range seen in training and seen three ways.

    Attributes:
        inputs: k feature names.
        low, high: k bounds; nothing is extrapolated beyond them.
        center: 3k means of the views; contributions are against them.
        weights: One row of 3k weights per label, in the order of `LABELS`.
        intercepts: One per label.
        probe: What the scorer's hidden state adds; None where none is read.
    """

    inputs: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    center: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    intercepts: tuple[float, ...]
    probe: Probe | None = None

    @property
    def tiers(self) -> frozenset[str]:
        """Tiers that are read."""
        read = frozenset(FEATURES[name].tier for name in self.inputs)
        return read if self.probe is None else read | {"state"}

    def design(self, features: Features) -> Matrix:
        """The views of every row, shape (n, 3k)."""
        return views(features.matrix(self.inputs), np.array(self.low), np.array(self.high))

    def known(self, features: Features) -> NDArray[np.bool_]:
        """Which rows have all signals that the scores read; text features are always there. Shape (n,)."""
        known = np.ones(len(features), dtype=np.bool_) if self.probe is None else self.probe.known(features)
        for name in self.inputs:
            if FEATURES[name].tier != "text":
                known &= np.isfinite(features.values[name])
        return known

    def probabilities(self, features: Features) -> Matrix:
        """Shape (n, 9); rows sum to 1."""
        logits = self.design(features) @ np.array(self.weights).T + np.array(self.intercepts)
        return softmax(logits if self.probe is None else logits + self.probe.logits(features))

    def contributions(self, features: Features, row: int, label: str) -> list[tuple[str, float, float]]:
        """Feature, its value and what it adds to the label's score (log-odds against an average turn), largest first.

        Against the mean of the other labels, since only differences count. The hidden state is one of them, without
        a value.
        """
        one = features.take(np.array([row]))
        against = _against_others(np.array(self.weights), label)
        terms = ((self.design(one)[0] - np.array(self.center)) * against).reshape(-1, VIEWS)
        found = [
            (name, float(features.values[name][row]), float(term))
            for name, term in zip(self.inputs, terms.sum(axis=1), strict=True)
        ]
        if self.probe is not None and self.probe.known(one)[0]:
            found.append((STATE, float("nan"), float(_against_others(self.probe.logits(one)[0], label))))
        return sorted(found, key=lambda entry: -abs(entry[2]))

    def to_json(self) -> dict[str, Any]:
        """Numbers with six significant digits."""
        return {
            "inputs": list(self.inputs),
            **{name: short(getattr(self, name)) for name in ("low", "high", "center", "intercepts")},
            "weights": {label: short(row) for label, row in zip(LABELS, self.weights, strict=True)},
            **({"probe": self.probe.to_json()} if self.probe else {}),
        }

    @classmethod
    def from_json(cls, data: Any, place: str) -> Scores:
        """Raises: RulesError with the place."""
        if not isinstance(data, dict):
            raise RulesError(f"{place} must be an object")
        inputs = measured(data.get("inputs"), f"{place}.inputs")
        k = len(inputs)
        return cls(
            inputs=inputs,
            low=numbers(data.get("low"), k, f"{place}.low"),
            high=numbers(data.get("high"), k, f"{place}.high"),
            center=numbers(data.get("center"), VIEWS * k, f"{place}.center"),
            weights=by_label(data.get("weights"), VIEWS * k, f"{place}.weights", LABELS),
            intercepts=numbers(data.get("intercepts"), len(LABELS), f"{place}.intercepts"),
            probe=Probe.from_json(data["probe"], f"{place}.probe") if data.get("probe") is not None else None,
        )


def _against_others(rows: Matrix, label: str) -> Matrix:
    """The label's row less the mean of the others'."""
    own = rows[LABELS.index(label)]
    return np.asarray(own - (rows.sum(axis=0) - own) / (len(LABELS) - 1))


def views(values: Matrix, low: Matrix, high: Matrix) -> Matrix:
    """Columns value, log, above 0 of each feature after clipping; shape (n, 3k).

    Unknown counts as 0: a turn whose finish reason nobody recorded was not cut.
    """
    clipped = np.clip(np.nan_to_num(values, nan=0.0), low, high)
    stacked = np.stack([clipped, np.sign(clipped) * np.log1p(np.abs(clipped)), clipped > 0], axis=2)
    return np.asarray(stacked.reshape(len(values), VIEWS * values.shape[1]), dtype=np.float64)


def softmax(logits: Matrix) -> Matrix:
    """Along the last axis, without overflow."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float64)


def measured(value: Any, place: str) -> tuple[str, ...]:
    """Names of features that are measured, not scored, from JSON; at least one. Raises: RulesError with the place."""
    if not isinstance(value, list) or not value:
        raise RulesError(f"{place} must list features")
    for name in value:
        if not isinstance(name, str) or name not in FEATURES or FEATURES[name].tier == "score":
            raise RulesError(f"{place}: no feature {name!r}")
    return tuple(value)
