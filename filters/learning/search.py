"""Picks rules: thresholds for forms that people wrote, then thresholds on the learned scores for what is left.

Plain numpy: a form has few thresholds to try. Precision comes first; a rule that is rarely right is not kept at all.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from filters.features import Features
from filters.labels import Label
from filters.learning.templates import SCORED, TEMPLATES, Template
from filters.rule import Rule, Threshold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Flags = NDArray[np.bool_]

MOST_GENUINE = 0.08
"""Most of a rule's catch may be genuine, for sampled turns and written ones each; one always may."""
LEAST_CAUGHT = 3.0
PRIOR = 2.0
"""Turns that a rule is imagined to have got wrong before it was seen, so that few lucky hits do not make a rule."""


def fit_rules(tiers: Collection[str], features: Features, labels: NDArray[np.str_], sampled: Flags) -> tuple[Rule, ...]:
    """The forms worth keeping, each with its best thresholds, judged on what the rules before it left.

    Args:
        tiers: Only features of these are tested.
        labels: The judge's label of each turn, shape (n,).
        sampled: Which turns a model wrote at the user header, shape (n,).
    """
    left = np.ones(len(features), dtype=np.bool_)
    rules = []
    for template in TEMPLATES:
        if not template.tiers <= set(tiers):
            continue
        found = _fit(template, features, labels, sampled, left)
        if found is not None:
            fires = found.fires(features) & left
            rules.append(replace(found, support=int(fires.sum())))
            left &= ~fires
    return tuple(rules)


def _fit(template: Template, features: Features, labels: NDArray[np.str_], sampled: Flags, left: Flags) -> Rule | None:
    options = [
        [(test := Threshold(feature, op, value), test.holds(features)) for value in values]
        for feature, op, values in template.tests
    ]
    right, genuine = labels == template.label.value, labels == Label.FOLLOW_UP.value
    best, best_tests = 0.0, None
    for combination in product(*options):
        fires = np.logical_and.reduce([left, *(holds for _, holds in combination)])
        caught = int(fires.sum())
        if template.certain and best_tests is None:
            best_tests = tuple(test for test, _ in combination)
        if caught < LEAST_CAUGHT or not _spares(fires, genuine, sampled):
            continue
        hits = int((fires & right).sum())
        if hits / (caught + PRIOR) < template.least_right:
            continue
        if hits > best:
            best, best_tests = hits, tuple(test for test, _ in combination)
    return None if best_tests is None else Rule(template.name, template.label, best_tests)


def _spares(fires: Flags, genuine: Flags, sampled: Flags) -> bool:
    for rows in (fires & sampled, fires & ~sampled):
        if (genuine & rows).sum() > max(1.0, MOST_GENUINE * rows.sum()):
            return False
    return True


WANTED = {
    Label.PROMPT_RESTATEMENT.value: 0.96,
    Label.IDENTITY_LEAKAGE.value: 0.92,
    Label.META_PLANNING.value: 0.92,
}
"""Precision on written turns below which the objective falls steeply: faults that must not be cried without cause."""
LEAST_WRITTEN = 0.93
"""F1 of genuine on written turns below which the objective falls steeply: tidy turns are the easy part."""
_ROUNDS = 3


def fit_scored(
    tiers: Collection[str], prepared: Features, labels: NDArray[np.str_], sampled: Flags, fired: NDArray[np.str_]
) -> tuple[Rule, ...]:
    """Rules that test the learned scores, for the turns no other rule took.

    One threshold after another is put where the objective is highest, three times round. The objective is the mean of
    three figures, so that none is bought with another: F1 of genuine on sampled turns, the same on written ones, and
    the mean F1 of the labels on written turns, where all labels are common enough to count. Without written turns the
    sampled ones stand in for them.

    Args:
        tiers: Only features of these are tested, beside scores.
        prepared: With held-out scores.
        fired: Label given by the rules before these, empty where none fired; shape (n,).
    """
    left = np.flatnonzero(fired == "")
    forms = [template for template in SCORED if template.fits(tiers)]
    held = {
        test: Threshold(*test).holds(prepared)[left]
        for template in forms
        for feature, op, values in template.tests
        for test in ((feature, op, value) for value in values)
    }
    chosen = [[values[0] for _, _, values in template.tests] for template in forms]

    def objective() -> float:
        given, open_ = fired.copy(), np.ones(len(left), dtype=np.bool_)
        for template, values in zip(forms, chosen, strict=True):
            fires = open_.copy()
            for (feature, op, _), value in zip(template.tests, values, strict=True):
                fires &= held[feature, op, value]
            given[left[fires]] = template.label.value
            open_ &= ~fires
        given[left[open_]] = Label.FOLLOW_UP.value
        return _objective(given, labels, sampled)

    best = objective()
    for _ in range(_ROUNDS):
        before = best
        for template, values in zip(forms, chosen, strict=True):
            for place, (_, _, options) in enumerate(template.tests):
                kept = values[place]
                for value in options:
                    values[place] = value
                    if (found := objective()) > best + 1e-9:
                        best, kept = found, value
                values[place] = kept
        if best <= before:
            break
    rules = []
    for template, values in zip(forms, chosen, strict=True):
        tests = [(feature, op, value) for (feature, op, _), value in zip(template.tests, values, strict=True)]
        if any(feature == "p_genuine" and op == "<=" and value <= 0.0 for feature, op, value in tests):
            continue  # Found useless: no probability is that low.
        telling = tuple(Threshold(*test) for test in tests if test != ("p_genuine", "<=", 1.0))
        rules.append(Rule(template.name, template.label, telling))
    return tuple(rules)


def _objective(given: NDArray[np.str_], labels: NDArray[np.str_], sampled: Flags) -> float:
    written = ~sampled
    genuine = [f1(given[rows], labels[rows], Label.FOLLOW_UP.value) for rows in (sampled, written) if rows.any()]
    tidy = written if written.any() else sampled
    each = [f1(given[tidy], labels[tidy], label.value) for label in Label if (labels[tidy] == label).any()]
    short = [max(0.0, wanted - precision(given[written], labels[written], label)) for label, wanted in WANTED.items()]
    if written.any():
        short.append(3 * max(0.0, LEAST_WRITTEN - genuine[-1]))
    return float(np.mean([*genuine, np.mean(each)])) - sum(short)


def precision(given: NDArray[np.str_], truth: NDArray[np.str_], label: str) -> float:
    """Share of right ones where the label was given; 1 where it never was."""
    found = given == label
    return float((truth[found] == label).mean()) if found.any() else 1.0


def f1(given: NDArray[np.str_], truth: NDArray[np.str_], label: str) -> float:
    """Harmonic mean of precision and recall; 0 where the label is neither given nor true."""
    total = (given == label).sum() + (truth == label).sum()
    return float(2 * ((given == label) & (truth == label)).sum() / total) if total else 0.0
