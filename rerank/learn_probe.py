"""Learns the probe of the hidden states, and what it says of the turns it is learned from.

An additive model that is fitted to a probe's log-odds of the probe's own training turns would trust them too much: with
hundreds of numbers a turn, half of what it finds is memory. So the shapes are fitted to log-odds of probes that did not
see the turn's conversation (stacking; Wolpert 1992), and only the probe that is stored has seen all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from rerank.folds import assign_folds
from rerank.logit import fractional_logit
from rerank.probe import Probe, States

Floats = npt.NDArray[np.float64]
STRENGTH = 0.003
"""Inverse of the ridge penalty, against the sum of the turns' losses on standardised states. Cross-validated, as is the
weight of composed turns: more of it orders composed turns better, and sampled ones worse."""
WRITTEN_WEIGHT = 0.2
"""Of a composed turn, against 1 for a sampled one."""
FOLDS = 5
SEED = 0


def fit_probe(
    states: States, target: Floats, weight: Floats, conversations: pl.Series, layer: int | None = None
) -> tuple[Probe, Floats]:
    """The probe that all of these turns teach, and the log-odds of each turn by one that its conversation did not.

    Args:
        states: Shape (n, d).
        target: In 0..1, shape (n,).
        weight: 1 for an ordinary turn, shape (n,).
        conversations: Of each turn; at least two.
        layer: Where the states were read.
    """
    centre, scale = states.mean(axis=0, dtype=np.float64), states.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 1e-9, scale, 1.0)
    standard = (states - centre) / scale
    total = weight.sum()
    share, penalty = weight / total, 1 / (STRENGTH * total)
    intercept, slopes = fractional_logit(standard, target, share, penalty)
    start = np.append(intercept, slopes)
    fold = assign_folds(conversations, min(FOLDS, conversations.n_unique()), SEED).to_numpy()
    apart = np.zeros(len(states))
    for number in np.unique(fold):
        held = fold == number
        others, without = fractional_logit(standard[~held], target[~held], share[~held], penalty, start)
        apart[held] = others + standard[held] @ without
    odds = intercept + standard @ slopes
    folded = slopes / scale
    probe = Probe(
        tuple(map(float, folded)),
        float(intercept - folded @ centre),
        float(odds.min()),
        float(odds.max()),
        layer,
    )
    return probe, apart
