"""Chooses among the ranked candidates of a site: the best one that may be chosen, or none."""

from __future__ import annotations

import polars as pl

REASONS = ("flagged", "truncated", "below_minimum", "lower_rank")


def select(table: pl.DataFrame, min_groundedness: float = 0.0, allow_truncated: bool = False) -> pl.DataFrame:
    """Adds `selected` (bool, at most one per site) and `rejected_for` (null for the selected one).

    Args:
        table: Columns `site_id, genuine, finish_reason, groundedness, rank`.
        min_groundedness: Survivors below it are not chosen.
        allow_truncated: Whether a turn cut at the token limit may be chosen; it ends mid-sentence.
    """
    reason = (
        pl.when(~pl.col("genuine"))
        .then(pl.lit("flagged"))
        .when((pl.col("finish_reason") == "length").fill_null(False) & (not allow_truncated))
        .then(pl.lit("truncated"))
        .when(pl.col("groundedness").fill_null(0.0) < min_groundedness)
        .then(pl.lit("below_minimum"))
    )
    table = table.with_columns(rejected_for=reason)
    eligible = pl.when(pl.col("rejected_for").is_null()).then(pl.col("rank"))
    table = table.with_columns(selected=(eligible == eligible.min().over("site_id")).fill_null(False))
    return table.with_columns(
        rejected_for=pl.when(~pl.col("selected") & pl.col("rejected_for").is_null())
        .then(pl.lit("lower_rank"))
        .otherwise(pl.col("rejected_for"))
    )
