"""Numbers in a turn against those of the conversation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from filters.text.context import Batch
from filters.text.hashing import Index, paired

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

Rows = NDArray[np.intp]


class Numbers(NamedTuple):
    """Numbers as written, grouping marks dropped, of k texts; m in all, in order.

    Attributes:
        key: A hash of each; shape (m,).
        owner: Text it stands in; shape (m,).
        start: Where each text begins among the numbers, and the end; shape (k + 1,).
    """

    key: NDArray[np.uint64]
    owner: Rows
    start: Rows

    @classmethod
    def read(cls, texts: list[str]) -> Numbers:
        import polars as pl

        column = pl.Series(texts, dtype=pl.String)
        found = column.str.replace_all(",", "", literal=True).str.extract_all(_NUMBER)
        counts = found.list.len().to_numpy().astype(np.intp)
        keys = found.filter(found.list.len() > 0).explode().hash().to_numpy()
        return cls(keys, np.repeat(np.arange(len(texts)), counts), np.concatenate([[0], np.cumsum(counts)]))

    def of(self, texts: Rows) -> tuple[NDArray[np.uint64], Rows]:
        """Numbers of some texts, one after another, and which of the r texts each belongs to, 0 to r - 1."""
        counts = np.diff(self.start)[texts]
        group = np.repeat(np.arange(len(texts)), counts)
        place = np.arange(len(group)) + np.repeat(self.start[texts] - (np.cumsum(counts) - counts), counts)
        return self.key[place], group


def measure(batch: Batch) -> dict[str, NDArray[np.float64]]:
    """A column of shape (n,) for each of `FEATURES`; only turns that hold a number are looked at."""
    n = len(batch)
    turns = Numbers.read(batch.turns)
    own = Index(paired(turns.key, turns.owner))
    rows = np.flatnonzero(np.diff(turns.start))
    pairs = np.flatnonzero(np.isin(batch.pair_row, rows))
    answers, answer_of = np.unique(batch.answer_of[rows], return_inverse=True)
    users, user_of = np.unique(batch.pair_user[pairs], return_inverse=True)
    told = _met(own, Numbers.read([batch.answers[number] for number in answers]), answer_of, rows)
    asked = Numbers.read([batch.users[number] for number in users])
    said = _met(own, asked, user_of, batch.pair_row[pairs])

    def count(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.bincount(turns.owner[own.first & mask], minlength=n).astype(np.float64)

    return {
        "numbers_new": count(~told & ~said),
        "numbers_answer": count(told & ~said),
        "numbers_changed": _changed(batch, turns, asked, users),
    }


def _met(own: Index, others: Numbers, texts: Rows, rows: Rows) -> NDArray[np.bool_]:
    """Which distinct numbers of the turns stand in those texts, each of which goes with the row beside it."""
    key, group = others.of(texts)
    place = own.find(paired(key, rows[group]))
    met = np.zeros(len(own.place), dtype=np.bool_)
    met[place[place >= 0]] = True
    return met


def _changed(batch: Batch, turns: Numbers, asked: Numbers, users: Rows) -> NDArray[np.float64]:
    """Numbers unlike the last user message's at the same place, as far as both have some; shape (n,)."""
    n = len(batch)
    if not users.size:
        return np.zeros(n)
    has = batch.last[turns.owner] >= 0
    owner, key = turns.owner[has], turns.key[has]
    last = np.searchsorted(users, batch.last[owner])
    place = np.flatnonzero(has) - turns.start[owner] + asked.start[last]
    both = place < asked.start[last + 1]
    changed = key[both] != asked.key[place[both]]
    return np.bincount(owner[both][changed], minlength=n).astype(np.float64)
