"""Rules as sentences: what a test asks of a turn, in words of the feature registry."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from filters.features import FEATURES, STATE

if TYPE_CHECKING:
    from filters.rule import Rule, Threshold

_VERBS = {"opens": "open", "ends": "end", "starts": "start"}
_STATES = ("cut", "in")
"""What a flag's words begin with: `it opens …`, `it is cut …`."""


def sentence(rule: Rule) -> str:
    """E.g. `If the turn has control tokens the conversation lacks, it is malformed.`"""
    return f"If {conditions(rule)}, it is {rule.label.value}.".replace("If it ", "If the turn ", 1)


def conditions(rule: Rule) -> str:
    """The tests joined by commas and `and`."""
    *most, last = [condition(test) for test in rule.tests]
    return f"{', '.join(most)} and {last}" if most else last


def condition(test: Threshold) -> str:
    """One test in words, with the turn as `it`."""
    feature = FEATURES.get(test.feature)
    least = test.op == ">="
    bound = f"at {'least' if least else 'most'} {test.value:g}"
    if feature is None or test.feature == "p_genuine" or test.feature.startswith("score_"):
        return f"{called(test.feature)} is {bound}"
    says = feature.says
    first = says.split()[0]
    if (feature.low, feature.high) == (0, 1):
        if first in (*_VERBS, *_STATES):
            # A value above 0 is asked for by >=, one below 1 by <=; else the test says nothing or never holds.
            plain = f"it is {says}" if first in _STATES else f"it {says}"
            denied = f"it is not {says}" if first in _STATES else f"it does not {_VERBS[first]}{says[len(first) :]}"
            if least and 0 < test.value <= 1:
                return plain
            if not least and 0 <= test.value < 1:
                return denied
        if first == "share":
            return f"the {says} is at {'least' if least else 'most'} {test.value * 100:g}%"
    elif first == "times":
        return f"{says[len(first) + 1 :]} {bound} times"
    elif feature.low == 0 and feature.high == float("inf") and feature.tier == "text" and first not in _MEASURES:
        if not least and 0 <= test.value < 1:
            return f"it has no {says}"
        return f"it has {says}" if least and 0 < test.value <= 1 else f"it has {bound} {says}"
    return f"the {says} is {bound}"


_MEASURES = ("length", "mean", "longest", "rarity", "number")
"""What is measured and not counted: `it has at least 60 length in characters` would not do."""


def valued(feature: str, value: float) -> str:
    """A value as it stands beside `condition`: `35%`, `yes`, `3`; `unknown` for NaN."""
    if math.isnan(value):
        return "unknown"
    entry = FEATURES.get(feature)
    if entry is not None and (entry.low, entry.high) == (0, 1):
        first = entry.says.split()[0]
        if first == "share":
            return f"{value * 100:.3g}%"
        if first in (*_VERBS, *_STATES) and value in (0, 1):
            return "yes" if value else "no"
    if 0 < abs(value) < 0.001:
        return f"{value:.3f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def called(feature: str) -> str:
    """What a feature is called in a sentence."""
    if feature == "p_genuine":
        return "p_genuine"
    if feature == STATE:
        return "hidden state of the scorer"
    if feature.startswith("score_"):
        return f"the score for {feature.removeprefix('score_')}"
    return FEATURES[feature].says if feature in FEATURES else feature
