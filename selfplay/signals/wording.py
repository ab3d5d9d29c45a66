"""The wording tier: what filters measures of a turn's text, handed to rerank as columns. Neither knows the other."""

from __future__ import annotations

import polars as pl

import rerank
from filters.features import Features, compute
from rerank.weights import TIER_SIGNALS

WORDING = TIER_SIGNALS["wording"]


def with_wording(table: pl.DataFrame, features: Features | None = None) -> pl.DataFrame:
    """Adds the columns of the tier, float64, null where unknown.

    Args:
        table: Columns `query, answer, history, turn`.
        features: `filters.features.compute(table)`, where it is known already.
    """
    found = (compute(table) if features is None else features).values
    return table.with_columns(pl.Series(name, found[name]).fill_nan(None) for name in WORDING)


def rank(
    table: pl.DataFrame, weights: rerank.Weights, by: str = "site_id", features: Features | None = None
) -> pl.DataFrame:
    """`rerank.rank` with the wording tier; its columns are taken away again."""
    return rerank.rank(with_wording(table, features), weights, by).drop(WORDING)
