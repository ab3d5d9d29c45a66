"""What each rule proves on conversations that nothing was learned from.

A precision seen while searching is flattered by the search; so the exact bound is taken on turns kept apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from filters.rule import Certified
from filters.rules import RuleSet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from filters.features import Features

MIN_PRECISION = 0.9
"""What a rule is asked to prove where nobody says otherwise."""


def kept_apart(groups: NDArray[np.str_], share: float, seed: int) -> NDArray[np.bool_]:
    """Turns of a random share of the conversations; shape (n,).

    Args:
        groups: Conversation of each turn, shape (n,).

    Raises:
        ValueError: The share is not in 0..1, or leaves nothing to learn from.
    """
    if not 0 <= share < 1:
        raise ValueError(f"a share of {share:g} of the conversations cannot be kept apart; give 0 or more, below 1")
    names, index = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed + 1).permutation(len(names))
    return np.asarray(order[index] < round(share * len(names)), dtype=np.bool_)


def certify(
    learned: RuleSet, features: Features, labels: NDArray[np.str_], wanted: Mapping[str, float] | float
) -> RuleSet:
    """The set with what each rule proved on turns that nothing was learned from; unchanged without any.

    Args:
        features, labels: The turns kept apart, n of each.
        wanted: Precision to prove, for all labels or by label; `MIN_PRECISION` for those it does not name.
    """
    if not len(labels):
        return learned
    decided = learned.decide(learned.prepare(features))
    rules = []
    for index, rule in enumerate(learned.rules):
        caught = labels[decided == index]
        right = int((caught == rule.label.value).sum())
        asked = wanted.get(rule.label.value, MIN_PRECISION) if isinstance(wanted, Mapping) else float(wanted)
        rules.append(replace(rule, certified=Certified(asked, len(caught), right, lower_bound(right, len(caught)))))
    return replace(learned, rules=tuple(rules))


def lower_bound(right: int, n: int, confidence: float = 0.95) -> float:
    """Exact lower one-sided bound of a proportion (Clopper & Pearson 1934), rounded down; 0 without a hit."""
    from scipy.stats import beta  # type: ignore[import-untyped]

    return float(np.floor(beta.ppf(1 - confidence, right, n - right + 1) * 1e4) / 1e4) if right else 0.0


def least_proof(precision: float, confidence: float = 0.95) -> int:
    """How many turns, all right, it takes to prove a precision between 0 and 1: 29 for .9."""
    return math.ceil(math.log(1 - confidence) / math.log(precision))
