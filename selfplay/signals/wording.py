"""The wording tier: what filters measures of a turn's text, handed to rerank as columns. Neither knows the other."""

from __future__ import annotations

import polars as pl

import filters.features
import rerank
from rerank.weights import TIER_SIGNALS

WORDING = TIER_SIGNALS["wording"]


def with_wording(table: pl.DataFrame) -> pl.DataFrame:
    """Adds the columns of the tier, float64, null where unknown.

    Args:
        table: Columns `query, answer, history, turn`.
    """
    found = filters.features.compute(table.drop(WORDING, strict=False)).values
    return table.with_columns(pl.Series(name, found[name]).fill_nan(None) for name in WORDING)


def rank(table: pl.DataFrame, weights: rerank.Weights, by: str = "site_id") -> pl.DataFrame:
    """`rerank.rank` with the wording tier; its columns are taken away again."""
    return rerank.rank(with_wording(table), weights, by).drop(WORDING)
