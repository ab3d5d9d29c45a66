"""Picks thresholds for rule templates on judged turns. Plain numpy: a template has few thresholds to try."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from filters.features import Features
from filters.rules import Rule, Threshold
from filters.templates import TEMPLATES, Template

if TYPE_CHECKING:
    from numpy.typing import NDArray

OTHER_FAULT = 0.25
"""Worth of catching a fault under another label than its own; the right label is worth 1."""
GENUINE_LOST = -3.0
"""Worth of calling a genuine turn a fault."""
LEAST_WORTH = 3.0
"""A rule that is worth less than three turns on the training data is dropped."""


MOST_LOST = 0.15
"""Of the sampled turns that a rule takes at most this share may be genuine, and of the written ones too; one always may."""


def fit_rules(
    features: Features, labels: NDArray[np.str_], weights: NDArray[np.float64], sampled: NDArray[np.bool_]
) -> tuple[Rule, ...]:
    """The templates worth keeping with the thresholds that are worth most, each judged on what is left for it.

    Args:
        labels: The judge's label of each turn, shape (n,).
        weights: How much each turn counts, shape (n,).
        sampled: Which turns a model wrote at the user header, shape (n,).
    """
    left = np.ones(len(features), dtype=np.bool_)
    rules = []
    for template in TEMPLATES:
        found = _fit(template, features, labels, weights, sampled, left)
        if found is not None:
            fires = found.fires(features) & left
            rules.append(Rule(found.name, found.label, found.tests, support=int(fires.sum())))
            left &= ~fires
    return tuple(rules)


def _fit(
    template: Template,
    features: Features,
    labels: NDArray[np.str_],
    weights: NDArray[np.float64],
    sampled: NDArray[np.bool_],
    left: NDArray[np.bool_],
) -> Rule | None:
    worth = weights * np.where(
        labels == template.label.value, 1.0, np.where(labels == "follow_up", GENUINE_LOST, OTHER_FAULT)
    )
    worth = np.where(left, worth, 0.0)
    options = [
        [(test := Threshold(feature, op, value), test.holds(features)) for value in values]
        for feature, op, values in template.tests
    ]
    best, best_tests = LEAST_WORTH, None
    for combination in product(*options):
        fires = np.logical_and.reduce([holds for _, holds in combination])
        gain = float(worth[fires].sum())
        if gain > best and _mostly_right(template, labels, weights, sampled, fires & left):
            best, best_tests = gain, tuple(test for test, _ in combination)
    return None if best_tests is None else Rule(template.name, template.label, best_tests)


def _mostly_right(
    template: Template,
    labels: NDArray[np.str_],
    weights: NDArray[np.float64],
    sampled: NDArray[np.bool_],
    fires: NDArray[np.bool_],
) -> bool:
    """At least half of the catch has the rule's own label, else its name would mislead; and few are genuine."""
    for rows in (fires & sampled, fires & ~sampled):
        if (labels[rows] == "follow_up").sum() > max(1.0, MOST_LOST * rows.sum()):
            return False
    total = weights[fires].sum()
    return bool(total > 0 and weights[fires & (labels == template.label.value)].sum() >= 0.5 * total)
