"""Fits the probe: ridge-penalised logistic regression on the standardised hidden states of sampled turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from filters.features import SETS
from filters.probe import Probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from filters.learning.learn import Judged

STRENGTH = 0.003
"""Inverse of the ridge penalty; chosen with the layer."""
LEAST = 200
"""No probe is learned from fewer sampled turns whose states are known."""
LEAST_FOLDS = 3
"""Folds that must have such turns, genuine ones and others: two at a time are left out."""


def rows_to_learn_from(name: str, judged: Judged) -> NDArray[np.intp]:
    """Sampled turns with known states; none where a set has no use for them, or they are too few for a probe."""
    nothing = np.zeros(0, dtype=np.intp)
    if judged.features.states is None or "likelihood" not in SETS[name]:
        return nothing
    known = judged.sampled & np.isfinite(judged.features.states[:, 0])
    spread = (len(np.unique(judged.folds[known & kind])) for kind in (judged.genuine, ~judged.genuine))
    return np.flatnonzero(known) if known.sum() >= LEAST and min(spread) >= LEAST_FOLDS else nothing


def fit_probe(judged: Judged, rows: NDArray[np.intp], layer: int) -> Probe:
    """The probe that these turns teach; what they are centered and scaled by is folded into its weights.

    Args:
        rows: Sampled turns with known states, genuine ones and others.
        layer: Where the states were read.
    """
    from sklearn.linear_model import LogisticRegression

    assert judged.features.states is not None  # noqa: S101  # the caller found rows with states
    states = judged.features.states[rows].astype(np.float64)
    center, scale = states.mean(axis=0), states.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    standard = (states - center) / scale
    model = LogisticRegression(C=STRENGTH, max_iter=500, tol=1e-3).fit(standard, judged.genuine[rows])
    odds = model.decision_function(standard)
    weights = model.coef_[0] / scale
    return Probe(
        layer,
        tuple(map(float, weights)),
        float(model.intercept_[0] - weights @ center),
        float(odds.min()),
        float(odds.max()),
    )
