"""What stands in the data twice: conversations, and user turns in several conversations."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from selfplay.cleaning.folder import Cleaning
from selfplay.cleaning.similar import CONVERSATIONS, TURNS, repeats, similarity

SHOWN = 5
"""So many of the commonest repeated turns are shown."""


@dataclass(slots=True)
class Found:
    """Numbers are places in reading order, of conversations or of judged turns; -1 is none.

    Attributes:
        conversation: The earlier conversation that each nearly repeats; shape (conversations,).
        similarity: To that one; shape (conversations,).
        turn: The earlier turn of another conversation that each repeats, word for word or nearly, of turns of at least
            `TURNS.least` words; shape (turns,).
        exact: Whether word for word; shape (turns,).
        repeated: Turns of any length that an earlier conversation has word for word.
        nearly: Turns that are not, but nearly repeat one.
        commonest: The first turn of each of the commonest texts, and how many conversations have it.
    """

    conversation: NDArray[np.intp]
    similarity: NDArray[np.float64]
    turn: NDArray[np.intp]
    exact: NDArray[np.bool_]
    repeated: int
    nearly: int
    commonest: dict[int, int] = field(default_factory=dict)


def find(folder: Cleaning, staying: NDArray[np.bool_]) -> Found:
    """Looks through all parts.

    Memory: some 200 bytes a conversation, then 120 a turn.

    Args:
        staying: Conversations that are not dropped for another reason: none is a duplicate of one that goes; shape
            (conversations,).
    """
    sketches = folder.sketches("conversations")
    conversation = repeats(sketches, CONVERSATIONS, staying)
    rows = np.flatnonzero(conversation >= 0)
    alike = np.full(len(conversation), np.nan)
    alike[rows] = similarity(sketches, rows, conversation[rows])
    del sketches
    sketches = folder.sketches("turns")
    near = repeats(sketches, TURNS)
    long = sketches.words >= TURNS.least
    del sketches
    owner = folder.owners()
    first, commonest = _exactly(pl.concat(folder.judged(["exact"]))["exact"], owner)
    elsewhere = (first >= 0) & (owner[first] != owner)
    nearly = ~elsewhere & (near >= 0) & (owner[near] != owner)
    turn = np.where(elsewhere & long, first, np.where(nearly, near, -1))
    return Found(conversation, alike, turn, elsewhere & long, int(elsewhere.sum()), int(nearly.sum()), commonest)


def _exactly(hashes: pl.Series, owner: NDArray[np.intp]) -> tuple[NDArray[np.intp], dict[int, int]]:
    """The first turn with the same words as each, -1 for the first itself; and the commonest by conversations."""
    rows = (
        pl.DataFrame({"hash": hashes, "owner": owner}).with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    )
    lowest = pl.col("row").min().over("hash")
    first = rows.select(pl.when(pl.col("hash").is_null() | (lowest == pl.col("row"))).then(-1).otherwise(lowest))
    groups = rows.drop_nulls().group_by("hash").agg(pl.col("row").min(), count=pl.col("owner").n_unique())
    top = groups.filter(pl.col("count") > 1).sort("count", "row", descending=[True, False]).head(SHOWN)
    return first.to_series().to_numpy().astype(np.intp), dict(top.select("row", "count").iter_rows())
