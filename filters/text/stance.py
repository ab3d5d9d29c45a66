"""What a turn does with the answer: asks, doubts, quotes, opens like the question."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Indel

from filters.text.context import Batch

_INF = float("inf")
FEATURES = (
    ("doubt", 0, _INF, "phrases of doubt and contradiction", "follow_up"),
    ("asks_other", 0, 1, "opens with a question to the other", "generic, off_topic in small models"),
    ("sentences", 0, _INF, "sentences", "run-on text"),
    ("asks_last", 0, 1, "ends with a question mark", "follow_up; a text that answers itself ends otherwise"),
    ("quoted", 0, 1, "share of characters between quotation marks", "follow_up that quotes, copied dialogue"),
    (
        "same_opening",
        0,
        1,
        "similarity of its first 40 characters to those of the last user message",
        "prompt_restatement",
    ),
    ("other_language", 0, 1, "in a listed language that the conversation is not in", "malformed"),
)

_OPENING = 40


def measure(batch: Batch) -> dict[str, NDArray[np.float64]]:
    """A column of shape (n,) for each of `FEATURES`."""
    return {
        **{name: batch.matched[name] for name in ("doubt", "asks_other", "sentences", "asks_last", "quoted")},
        "same_opening": _same_opening(batch),
        "other_language": _other_language(batch),
    }


def _same_opening(batch: Batch) -> NDArray[np.float64]:
    said = [text.lstrip()[:_OPENING].casefold() for text in batch.users]
    return np.fromiter(
        (
            Indel.normalized_similarity(turn.lstrip()[:_OPENING].casefold(), said[last]) if last >= 0 and turn else 0.0
            for turn, last in zip(batch.turns, batch.last.tolist(), strict=True)
        ),
        np.float64,
        len(batch),
    )


def _other_language(batch: Batch) -> NDArray[np.float64]:
    """Its most frequent function words are those of a language that has few of the conversation's."""
    own, said = batch.function_words
    rows, language = np.arange(len(batch)), own.argmax(axis=1)
    plain = (own.max(axis=1) >= 3) & (own.max(axis=1) >= 0.2 * batch.turn_tokens.counts)
    few = (said.max(axis=1) >= 5) & (2 * said[rows, language] < said.max(axis=1))
    return np.asarray(plain & few, dtype=np.float64)
