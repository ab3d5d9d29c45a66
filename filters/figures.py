"""Numbers in a turn against those of the conversation."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from filters.context import Batch

FEATURES = (
    ("numbers_new", 0, float("inf"), "numbers nobody said before", "a changed number is no restatement"),
    ("numbers_answer", 0, float("inf"), "numbers from the answer alone", "a tie to the answer"),
)

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_DIGIT = re.compile(r"\d")


def numbers(text: str) -> list[str]:
    """Numbers as written, in order, grouping marks dropped."""
    return [found.replace(",", "") for found in _NUMBER.findall(text)]


def measure(batch: Batch) -> dict[str, NDArray[np.float64]]:
    """A column of shape (n,) for each of `FEATURES`. Few turns hold a digit: row by row is fast enough."""
    new, tied = np.zeros(len(batch)), np.zeros(len(batch))
    known: dict[tuple[bool, int], frozenset[str]] = {}

    def read(is_answer: bool, number: int) -> frozenset[str]:
        key = (is_answer, number)
        if key not in known:
            known[key] = frozenset(numbers((batch.answers if is_answer else batch.users)[number]))
        return known[key]

    bounds = np.searchsorted(batch.pair_row, np.arange(len(batch) + 1)).tolist()
    for row, turn in enumerate(batch.turns):
        if not _DIGIT.search(turn):
            continue
        own = set(numbers(turn))
        users = batch.pair_user[bounds[row] : bounds[row + 1]].tolist()
        said = frozenset().union(*(read(False, user) for user in users))
        answer = read(True, int(batch.answer_of[row]))
        new[row] = len(own - said - answer)
        tied[row] = len((own & answer) - said)
    return {"numbers_new": new, "numbers_answer": tied}
