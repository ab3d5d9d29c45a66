"""Fits the calibration of p_genuine on held-out log-odds of sampled turns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from filters.calibration import ODDS, PROBED, Calibration, Weights
from filters.resampling import clusters, resampled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from filters.learning.learn import Judged

    Matrix = NDArray[np.float64]
    Flags = NDArray[np.bool_]
    Rows = NDArray[np.intp]


def calibrated(judged: Judged, odds: Matrix, seed: int = 0, replicates: int = 0) -> Calibration:
    """Weighs the log-odds of the sampled turns, and with the probe's those of them whose state is known.

    Args:
        odds: Held-out log-odds of each turn, shape (n, 2) or (n, 3), NaN where the state is unknown.
        replicates: How many bootstrap resamples of the conversations are weighed as well. Both kinds of weights see
            the same ones. With 0 the weights themselves stand for them.

    Raises:
        ValueError: All or none of the turns are genuine.
    """
    rows = np.flatnonzero(judged.sampled)
    members = clusters(judged.groups[rows])
    rng = np.random.default_rng(seed)
    draws = [rows[resampled(members, rng)] for _ in range(replicates)] or [rows]
    plain = _weighed(judged, odds[:, :ODDS], rows, draws)
    if odds.shape[1] < PROBED:
        return plain
    known = np.isfinite(odds[:, -1])
    return replace(plain, probed=_weighed(judged, odds, rows[known[rows]], [drawn[known[drawn]] for drawn in draws]))


def _weighed(judged: Judged, odds: Matrix, rows: Rows, draws: Iterable[Rows]) -> Calibration:
    weights = (_weigh(odds[picked], judged.genuine[picked]) for picked in (rows, *draws))
    return Calibration(next(weights), tuple(weights), {})


def _weigh(odds: Matrix, genuine: Flags) -> Weights:
    from sklearn.linear_model import LogisticRegression

    if genuine.all() or not genuine.any():
        raise ValueError("of the sampled turns all or none are genuine: nothing to calibrate p_genuine on")
    model = LogisticRegression(C=1e4).fit(odds, genuine)
    return (*(float(x) for x in model.coef_[0]), float(model.intercept_[0]))
