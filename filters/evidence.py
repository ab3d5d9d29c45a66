"""Why a rule fired, in one line: its tests with the values met, and the words that met them.

Quotes are raw text of whoever wrote the turn, cut to a bound; escaping is the business of whatever shows them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from filters import cues, remarks
from filters.features import FEATURES, Features
from filters.units import plain

if TYPE_CHECKING:
    from filters.rules import Rule

QUOTE = 80
"""Characters a quote may have."""

_PATTERNS: dict[str, re.Pattern[str]] = {
    "control": cues.CONTROL,
    "role_marker": cues.ROLE_MARKER,
    "assistant": cues.ASSISTANT,
    "advice": cues.ADVICE,
    "steering": cues.STEERING,
    "opening": cues.OPENING,
    "planning": cues.PLANNING,
    "stage_note": cues.STAGE_NOTE,
    "generic": remarks.GENERIC,
    "textbook": remarks.TEXTBOOK,
}

_AS_WRITTEN = ("control", "role_marker", "stage_note")
"""The other patterns are for lower case."""


def evidence(rule: Rule, features: Features, row: int, turn: str, history: list[str], answer: str) -> str:
    """E.g. `edit similarity to an earlier user message 0.97 >= 0.9; "why is the sky blue"`."""
    parts = []
    quoted = None
    for test in rule.tests:
        value = features.values[test.feature][row]
        parts.append(f"{FEATURES[test.feature].says} {value:.3g} {test.op} {test.value:g}")
        quoted = quoted or quote(test.feature, test.op, turn, history, answer)
    return "; ".join(parts if quoted is None else [*parts, f'"{quoted}"'])


def quote(feature: str, op: str, turn: str, history: list[str], answer: str) -> str | None:
    """The words of the turn that met a test on `feature`, raw and cut to `QUOTE`; None where there are none to show."""
    if op == "<=":
        return None
    if feature in _PATTERNS:
        text = plain(turn[:8000])
        found = _PATTERNS[feature].search(text if feature in _AS_WRITTEN else text.lower())
        return _cut(text[slice(*found.span())]) if found else None
    if feature.startswith("query_") and feature != "query_new":
        return _shared(turn, "\n".join(text or "" for text in history))
    if feature in ("answer_cover", "answer_sentence", "answer_recall", "answer_run", "answer_order"):
        return _shared(turn, answer)
    return None


def _shared(turn: str, other: str) -> str | None:
    """The longest stretch that both hold."""
    from difflib import SequenceMatcher

    turn, other = turn[:300], other[:2000]
    lowered, lowered_other = turn.lower(), other.lower()
    if len(lowered) != len(turn):  # A few letters grow when lowered, and places would shift.
        lowered, lowered_other = turn, other
    matcher = SequenceMatcher(None, lowered, lowered_other, autojunk=False)
    found = matcher.find_longest_match()
    return _cut(turn[found.a : found.a + found.size]) if found.size > 3 else None


def _cut(text: str) -> str | None:
    text = text.strip()
    return None if not text else text if len(text) <= QUOTE else text[: QUOTE - 1] + "…"
