"""What every rule says about one turn: each test with its value, whether it held, and the words that met it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from filters.evidence import quote
from filters.labels import Label
from filters.wording import called, valued

if TYPE_CHECKING:
    from filters.features import Features
    from filters.rules import Rule, RuleSet, Threshold

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


def explain(rules: RuleSet, features: Features, row: int, turn: str, history: list[str], answer: str) -> list[Said]:
    """What each rule says about one turn, in order.

    Args:
        features: Those the rules were asked with (`prepared`).
        row: Place of the turn in them.
    """
    said: list[Said] = []
    decided = False
    for place, rule in enumerate(rules.rules):
        tests = []
        for test in rule.tests:
            value = float(features.values[test.feature][row])
            held = value >= test.value if test.op == ">=" else value <= test.value
            words = quote(test.feature, test.op, turn, history, answer) if held else None
            tests.append(Tested(test, value, held, words))
        fired = rule.enabled and all(tested.held for tested in tests)
        said.append(Said(place, rule, tuple(tests), fired, fired and not decided))
        decided = decided or fired
    return said


def sets_of(rules: RuleSet) -> Mapping[str, RuleSet]:
    """The rule sets by name, `text` and `full`."""
    sets: Any = getattr(rules, "sets", None)
    return sets or {"text": rules, "full": rules}


def prepared(rules: RuleSet, features: Features) -> Features:
    """The features as the rules of this set read them: with its scores, where it has some."""
    prepare: Any = getattr(rules, "prepare", None)
    result: Features = prepare(features) if prepare else features
    return result


def contributions(rules: RuleSet, features: Features, row: int, label: Label) -> list[Contribution]:
    """What each feature adds to the score of `label` on one turn, the largest first; empty where there is no score."""
    scores: Any = getattr(rules, "scores", None)
    return list(scores.contributions(features, row, label)) if scores else []


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
    return f"{called(name)} {valued(name, value)} ({adds:+.2f})"
