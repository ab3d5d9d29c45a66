"""Orders the candidates of each site, most grounded first."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import polars as pl

from rerank.fuse import fuse
from rerank.weights import Weights, load_weights


def rank(table: pl.DataFrame, weights: Weights | None = None, by: str = "site_id") -> pl.DataFrame:
    """Adds `groundedness` 0..1, its parts, `copy`, `cut`, `ranked_with` and `rank` (1 = best within `by`).

    Rows keep their order. Within a site: survivors before flagged rows (`genuine` false, where that column exists),
    then turns that are more than a copy, then by groundedness; with a column `p_genuine`, by the product of both:
    the best turn is one that is a user's and grounded. Ties go to the lower `sample`, then by a hash of the turn, so
    that the order of the rows never decides unless the turns are equal. Null ids are one site.

    Args:
        table: One row per candidate: `by`, `turn`, `answer`, `history` or `query`; optional signals (contract of
            `selfplay.signals.measure`), `turn_state` (a list of d numbers), `genuine`, `p_genuine`,
            `finish_reason`, `temperature`, `sample`.
        weights: The shipped ones if None.

    Raises:
        WeightsError: The shipped weights cannot be read.
        ValueError: A column that is missing, or states of another scorer than the weights' probe reads.
    """
    needed = [by, "turn", "answer"]
    absent = [name for name in needed if name not in table.columns]
    if "history" not in table.columns and "query" not in table.columns:
        absent.append("history")
    if absent:
        raise ValueError(f"ranking needs the column `{absent[0]}`")
    fused = fuse(table, weights or load_weights(), by)
    reason = pl.col("finish_reason") if "finish_reason" in table.columns else pl.lit(None, pl.String)
    fused = fused.with_columns((reason == "length").fill_null(False).alias("cut"))
    return fused.with_columns(_ranks(fused, by))


def merit(columns: Collection[str]) -> pl.Expr:
    """What orders the turns of a site, 0..1: `groundedness`, times `p_genuine` where `columns` has it (null is 0.5).

    A column `judged_merit` goes before both: there a judge had turns trade their merits with their places.
    """
    if "judged_merit" in columns:
        return pl.col("judged_merit")
    if "p_genuine" not in columns:
        return pl.col("groundedness")
    return pl.col("groundedness") * pl.col("p_genuine").cast(pl.Float64).fill_nan(None).fill_null(0.5)


def _ranks(fused: pl.DataFrame, by: str) -> pl.Series:
    columns = fused.columns
    genuine = pl.col("genuine").fill_null(True) if "genuine" in columns else pl.lit(True)
    hashed = pl.Series("_hash", [hashlib.sha256((turn or "").encode()).hexdigest() for turn in fused["turn"]])
    keys = [
        pl.col(by).alias("_by"),
        genuine.not_().alias("_flagged"),
        pl.col("copy").alias("_copy"),
        (-merit(columns)).alias("_merit"),
        (pl.col("temperature") if "temperature" in columns else pl.lit(0.0)).alias("_temperature"),
        (pl.col("sample") if "sample" in columns else pl.lit(0)).alias("_sample"),
        hashed,
    ]
    ordered = (
        fused.select(keys)
        .with_row_index("_row")
        .sort("_by", "_flagged", "_copy", "_merit", "_sample", "_temperature", "_hash", "_row", nulls_last=True)
        .with_columns((pl.int_range(pl.len()).over("_by") + 1).alias("rank"))
        .sort("_row")
    )
    return ordered["rank"].cast(pl.Int64)
