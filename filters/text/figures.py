"""Numbers in a turn against those of the conversation."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from filters.text.context import Batch

FEATURES = (
    ("numbers_new", 0, float("inf"), "numbers nobody said before", "a changed number is no restatement"),
    ("numbers_answer", 0, float("inf"), "numbers from the answer alone", "a tie to the answer"),
    (
        "numbers_changed",
        0,
        float("inf"),
        "numbers that differ from the last user message's, in order",
        "variants of it",
    ),
)

_NUMBER = r"\d+(?:\.\d+)*"
_DIGIT = re.compile(r"\d")


def measure(batch: Batch) -> dict[str, NDArray[np.float64]]:
    """A column of shape (n,) for each of `FEATURES`; only turns that hold a digit are looked at."""
    new, tied, changed = (np.zeros(len(batch)) for _ in range(3))
    rows = [row for row, turn in enumerate(batch.turns) if _DIGIT.search(turn)]
    bounds = np.searchsorted(batch.pair_row, np.arange(len(batch) + 1)).tolist()
    answer_of = batch.answer_of.tolist()
    users_of = {row: batch.pair_user[bounds[row] : bounds[row + 1]].tolist() for row in rows}
    answers = _numbers(batch.answers, {answer_of[row] for row in rows})
    users = _numbers(batch.users, {user for own in users_of.values() for user in own})
    turns = _numbers(batch.turns, set(rows))
    for row in rows:
        own, answer = set(turns[row]), set(answers[answer_of[row]])
        said = {number for user in users_of[row] for number in users[user]}
        new[row] = len(own - said - answer)
        tied[row] = len((own & answer) - said)
        if users_of[row]:
            changed[row] = sum(a != b for a, b in zip(turns[row], users[users_of[row][-1]], strict=False))
    return {"numbers_new": new, "numbers_answer": tied, "numbers_changed": changed}


def _numbers(texts: list[str], wanted: set[int]) -> dict[int, list[str]]:
    """Numbers as written, in order, grouping marks dropped, of the texts that are wanted."""
    import polars as pl

    order = sorted(wanted)
    column = pl.Series([texts[number] for number in order], dtype=pl.String)
    found = column.str.replace_all(",", "", literal=True).str.extract_all(_NUMBER).to_list()
    return dict(zip(order, found, strict=True))
