"""Why a rule fired, in one line: its tests with the values met, and the words that met them.

Quotes are raw text of whoever wrote the turn, cut to a bound; escaping is the business of whatever shows them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from filters.features import FEATURES, Features
from filters.text import cues, remarks
from filters.text.units import plain

if TYPE_CHECKING:
    from filters.rule import Rule

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
    """The longest stretch of whole words, or of characters of scripts without spaces, that both hold."""
    turn, other = turn[:300], other[:2000]
    lowered, lowered_other = turn.lower(), other.lower()
    if len(lowered) != len(turn):  # A few letters grow when lowered, and places would shift.
        lowered, lowered_other = turn, other
    spans = [found.span() for found in _PIECE.finditer(lowered)]
    begin = best = 0
    where = slice(0, 0)
    for last, (_, end) in enumerate(spans):  # What holds a longer stretch holds its parts: both ends only move on.
        while begin <= last and lowered[spans[begin][0] : end] not in lowered_other:
            begin += 1
        if begin <= last and end - spans[begin][0] > best:
            where = slice(spans[begin][0], end)
            best = end - spans[begin][0]
    return _cut(turn[where]) if best > 3 else None


_RUN = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_PIECE = re.compile(rf"[{_RUN}]|[^\W{_RUN}]+")


def _cut(text: str) -> str | None:
    text = text.strip()
    return None if not text else text if len(text) <= QUOTE else text[: QUOTE - 1] + "…"
