"""Chooses among the ranked candidates of a site: the best one that may be chosen, or k different ones, or none.

A site is chosen for by itself unless `diversity` is given: then what was chosen before it in reading order counts too,
which takes all sites in order. `choosing.in_order.choose_in_order` does that for a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from rerank.diversity import Worn, pick
from rerank.rank import merit

REASONS = ("flagged", "blank", "copy", "truncated", "below_minimum", "redundant", "lower_rank")
"""`blank`: nothing but white space. `copy`: it only repeats the answer, a part of it or an earlier user message, and no
rule said so. `redundant`: of a better rank than a chosen one, or with room left, but too much like another that was
chosen."""
UNBARRED = ("redundant", "lower_rank")
"""What turns that might have been chosen are told."""

Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Texts to unit-length rows."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What may be chosen at a site, best first. `rows` are places in the table; `order` is the site's in reading."""

    order: int
    rows: list[int]
    turns: list[str]
    merits: list[float]
    vectors: npt.NDArray[np.float32] | None


def select(
    table: pl.DataFrame,
    min_groundedness: float = 0.0,
    allow_truncated: bool = False,
    k: int = 1,
    diversity: float = 0.0,
    encode: Encode | None = None,
) -> pl.DataFrame:
    """Adds `selected` (bool, at most `k` per site) and `rejected_for` (null for those selected).

    Turns that are equal but for case, spaces and punctuation are never both selected. Ties are broken as in `rank`, so
    that the same rows give the same choice.

    Args:
        table: Columns `site_id, turn, finish_reason, groundedness, rank`, optional `genuine` (true, if missing),
            `p_genuine`, `copy`. Sites are chosen for in the order in which they first appear.
        min_groundedness: Survivors below it are not chosen.
        allow_truncated: Whether a turn cut at the token limit may be chosen; it ends mid-sentence.
        diversity: 0..1, what redundancy weighs against merit (see `rerank.diversity`).
        encode: Compares the turns of a site by embeddings; by their words if None.
    """
    table = bar(table, min_groundedness, allow_truncated)
    if k > 1 or diversity:
        worn = Worn() if diversity else None
        chosen = {row for site in choices(table, k, diversity, encode) for row in take(site, k, diversity, worn)}
        selected = pl.int_range(pl.len()).is_in(sorted(chosen))
    else:
        eligible = pl.when(pl.col("rejected_for").is_null()).then(pl.col("rank"))
        selected = (eligible == eligible.min().over("site_id")).fill_null(False)
    return tell(table.with_columns(selected=selected), k)


def encoder(tiers: Iterable[str]) -> Encode | None:
    """What compares turns where the embedding tier is measured, loaded when first used; None where it is not."""
    if "embedding" not in tiers:
        return None

    def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        from selfplay.signals.embedding import load_embedder

        return load_embedder().encode(texts)

    return encode


def bar(table: pl.DataFrame, min_groundedness: float, allow_truncated: bool) -> pl.DataFrame:
    """With `rejected_for` for what may not be chosen at all, null for the rest."""
    genuine = pl.col("genuine").fill_null(True) if "genuine" in table.columns else pl.lit(True)
    copy = pl.col("copy").fill_null(False) if "copy" in table.columns else pl.lit(False)
    blank = pl.col("turn").fill_null("").str.strip_chars() == "" if "turn" in table.columns else pl.lit(False)
    return table.with_columns(
        rejected_for=pl.when(~genuine)
        .then(pl.lit("flagged"))
        .when(blank)
        .then(pl.lit("blank"))
        .when(copy)
        .then(pl.lit("copy"))
        .when((pl.col("finish_reason") == "length").fill_null(False) & (not allow_truncated))
        .then(pl.lit("truncated"))
        .when(pl.col("groundedness").fill_null(0.0) < min_groundedness)
        .then(pl.lit("below_minimum"))
    )


def tell(table: pl.DataFrame, k: int) -> pl.DataFrame:
    """With the reasons of those that might have been chosen and were not."""
    worst = pl.when(pl.col("selected")).then(pl.col("rank")).max().over("site_id")
    room = pl.col("selected").sum().over("site_id") < k
    return table.with_columns(
        rejected_for=pl.when(~pl.col("selected") & pl.col("rejected_for").is_null())
        .then(pl.when((pl.col("rank") < worst) | room).then(pl.lit("redundant")).otherwise(pl.lit("lower_rank")))
        .otherwise(pl.col("rejected_for"))
    )


def choices(table: pl.DataFrame, k: int, diversity: float, encode: Encode | None) -> list[Choice]:
    """The sites with anything to choose from, in reading order, or as they appear where no `ordinal` tells it."""
    appears = pl.col("ordinal") if "ordinal" in table.columns else pl.col("_row").min().over("site_id")
    eligible = (
        table.with_row_index("_row")
        .select(
            "_row",
            appears.cast(pl.Int64).alias("_order"),
            pl.col("turn").fill_null(""),
            pl.col("rank"),
            merit(table.columns).fill_null(0.0).alias("_merit"),
            pl.col("rejected_for").is_null().alias("_eligible"),
        )
        .filter("_eligible")
        .sort("_order", "rank")
    )
    vectors: dict[str, npt.NDArray[np.float32]] = {}
    if encode is not None and diversity and k > 1:  # at a site that takes all it has, nothing is compared
        texts = eligible.filter(pl.len().over("_order") > k)["turn"].unique().sort().to_list()
        vectors = dict(zip(texts, encode(texts), strict=True)) if texts else {}
    found = []
    for (order,), site in eligible.group_by("_order", maintain_order=True):
        turns = site["turn"].to_list()
        compared = bool(vectors) and all(turn in vectors for turn in turns)
        found.append(
            Choice(
                int(order),
                site["_row"].to_list(),
                turns,
                site["_merit"].to_list(),
                np.stack([vectors[turn] for turn in turns]) if compared else None,
            )
        )
    return found


def take(site: Choice, k: int, diversity: float, worn: Worn | None) -> list[int]:
    """The rows that are chosen at a site; their turns are added to `worn`."""
    places = pick(site.turns, site.merits, k, diversity, site.vectors, worn)
    if worn is not None:
        for place in places:
            worn.add(site.turns[place])
    return [site.rows[place] for place in places]
