"""How well a score orders turns: AUC, Spearman's correlation and nDCG, with ties, and with weights for the bootstrap.

scikit-learn and scipy have the first two for one sample at a time; here two thousand draws are computed in one go.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def midranks(values: Floats, weights: Floats) -> Floats:
    """Ranks from 1 among rows that each stand there `weights` times; ties share the mean of theirs.

    Args:
        values: Shape (n,).
        weights: Whole numbers, shape (b, n).

    Returns:
        Shape (b, n). That of a row of weight 0 means nothing.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.flatnonzero(np.append([True], ordered[1:] != ordered[:-1])) if len(ordered) else np.zeros(0, np.intp)
    group = np.add.reduceat(weights[:, order], first, axis=1) if len(first) else np.zeros((len(weights), 0))
    shared = np.cumsum(group, axis=1) - group / 2 + 0.5
    ranks = np.empty_like(weights, dtype=np.float64)
    ranks[:, order] = np.repeat(shared, np.diff(np.append(first, len(ordered))), axis=1)
    return ranks


def auc_of(score: Floats, positive: Flags) -> Callable[[Floats], Floats]:
    """Probability that a positive's score exceeds a negative's, ties counted half (Mann-Whitney U / mn); NaN where
    one of the kinds is missing. For `Bootstrap.statistic`."""

    def figure(weights: Floats) -> Floats:
        inside = weights[:, positive]
        p, n = inside.sum(axis=1), weights[:, ~positive].sum(axis=1)
        wins = (midranks(score, weights)[:, positive] * inside).sum(axis=1) - p * (p + 1) / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(wins / (p * n))

    return figure


def auc(positive: Floats, negative: Floats) -> float:
    """The same, of two samples of scores."""
    score = np.concatenate([positive, negative])
    return float(auc_of(score, np.arange(len(score)) < len(positive))(np.ones((1, len(score))))[0])


def spearman_of(score: Floats, grade: Floats) -> Callable[[Floats], Floats]:
    """Spearman's rank correlation, NaN where one of them is constant. For `Bootstrap.statistic`."""

    def figure(weights: Floats) -> Floats:
        total = weights.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            a, b = (
                ranks - (ranks * weights).sum(axis=1, keepdims=True) / total
                for ranks in (midranks(score, weights), midranks(grade, weights))
            )
            product = (weights * a * b).sum(axis=1)
            return np.asarray(product / np.sqrt((weights * a * a).sum(axis=1) * (weights * b * b).sum(axis=1)))

    return figure
