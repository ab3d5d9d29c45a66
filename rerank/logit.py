"""Fractional logit (Papke & Wooldridge 1996): logistic regression whose targets are numbers in 0..1.

Written out since scikit-learn's logistic regression takes classes only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
WORTH_KEEPING = 0.5
"""A step this much shorter than the one before is made with the same curvature."""
CLOSE = 1e-9
"""No coefficient moves further in the last step."""


def fractional_logit(
    features: Floats, target: Floats, weight: Floats, penalty: float, start: Floats | None = None
) -> tuple[float, Floats]:
    """Minimises weighted cross-entropy + penalty / 2 * |coefficients|^2; the intercept is free.

    By Newton's method, with the curvature computed anew only where the old one no longer halves the step: it takes
    most of the time where there are hundreds of columns. The loss is strictly convex, so that the halving of steps
    that overshoot makes it converge from anywhere.

    Args:
        features: Shape (n, k).
        target: In 0..1, shape (n,).
        weight: Shape (n,); their sum is 1, or they are weighed against the penalty by what it is.
        start: Intercept and coefficients of a problem like this one, shape (1 + k,); changes the time it takes only.

    Returns:
        The intercept, and the coefficients, shape (k,).
    """
    design = np.column_stack([np.ones(len(features)), features])
    ridge = np.full(design.shape[1], penalty)
    ridge[0] = 1e-9
    beta = np.zeros(design.shape[1]) if start is None else start
    odds = design @ beta

    def loss(odds: Floats, beta: Floats) -> float:
        return float(weight @ (np.logaddexp(0, odds) - target * odds) + (ridge * beta**2).sum() / 2)

    inverse: Floats | None = None
    before, moved = loss(odds, beta), np.inf
    for _ in range(200):
        chance = 1 / (1 + np.exp(-np.clip(odds, -30, 30)))
        gradient = (weight * (chance - target)) @ design + ridge * beta
        fresh = inverse is None
        if inverse is None:
            curved = weight * chance * (1 - chance)
            inverse = np.linalg.inv((design.T * curved) @ design + np.diag(ridge))
        step = inverse @ gradient
        along = design @ step
        size = 1.0
        while size > 1e-6 and loss(odds - size * along, beta - size * step) > before:
            size /= 2
        beta, odds = beta - size * step, odds - size * along
        before = loss(odds, beta)
        last, moved = moved, float(np.abs(size * step).max())
        if moved < CLOSE:
            break
        if size < 1 or (not fresh and moved > WORTH_KEEPING * last):
            inverse = None
    return float(beta[0]), beta[1:]
