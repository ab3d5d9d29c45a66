"""What every rule says about one turn: each test with its value, whether it held, and the words that met it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from filters.evidence import quote
from filters.features import STATE
from filters.labels import Label
from filters.wording import called, valued

if TYPE_CHECKING:
    from filters.features import Features
    from filters.rule import Rule, Threshold
    from filters.rules import RuleSet

TOP = 3
"""Contributions in the short form."""

Contribution = tuple[str, float, float]
"""Feature, its value (NaN where unknown), and what it adds to a label's score."""


@dataclass(frozen=True, slots=True)
class Tested:
    """One test on one turn.

    Attributes:
        value: NaN where the feature is unknown; no test on it holds.
        quote: Words of the turn that met the test, raw; None where there are none to show.
    """

    test: Threshold
    value: float
    held: bool
    quote: str | None


@dataclass(frozen=True, slots=True)
class Said:
    """What one rule says about one turn.

    Attributes:
        place: Place of the rule in its set, counted from 0.
        fired: All its tests held, and it is switched on.
        decides: It is the first that fired.
    """

    place: int
    rule: Rule
    tests: tuple[Tested, ...]
    fired: bool
    decides: bool


def explain(rules: RuleSet, prepared: Features, row: int, turn: str, history: list[str], answer: str) -> list[Said]:
    """What each rule says about one turn, in order.

    Args:
        prepared: What `rules.prepare` gave.
        row: Place of the turn in it.
    """
    said: list[Said] = []
    decided = False
    for place, rule in enumerate(rules.rules):
        tests = []
        for test in rule.tests:
            value = float(prepared.values[test.feature][row])
            held = test.met(value)
            words = quote(test.feature, test.op, turn, history, answer) if held else None
            tests.append(Tested(test, value, held, words))
        fired = rule.enabled and all(tested.held for tested in tests)
        said.append(Said(place, rule, tuple(tests), fired, fired and not decided))
        decided = decided or fired
    return said


def contributions(rules: RuleSet, features: Features, row: int, label: Label) -> list[Contribution]:
    """What each feature adds to the score of `label` on one turn, the largest first; empty where there is no score."""
    return rules.scores.contributions(features, row, label) if rules.scores else []


def likelihood(rules: RuleSet, features: Features, row: int) -> list[Contribution]:
    """What each feature adds to the linear part of p_genuine on one turn, the largest first; empty without scores."""
    return rules.genuine.contributions(features, row, Label.FOLLOW_UP) if rules.genuine else []


def brief(rules: RuleSet, features: Features, row: int, label: Label, rule: str | None, why: str | None) -> list[str]:
    """The short form: the rule that decided with its values, and the largest contributions to the label's score.

    Args:
        rule, why: The columns `rule` and `evidence` of `filters.label`.
    """
    fired = "no rule fired" if rule is None else f"{rule}: {why}"
    top = contributions(rules, features, row, label)[:TOP]
    return [fired, *(f"score for {label.value}: {told(entry)}" for entry in top)]


def told(entry: Contribution) -> str:
    """E.g. `question marks 2 (+0.41)`."""
    name, value, adds = entry
    has = "" if name == STATE else f" {valued(name, value)}"
    return f"{called(name)}{has} ({adds:+.2f})"
