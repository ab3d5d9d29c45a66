"""What turns can be ordered by: what selects in a run, its parts, and the baselines. A score each, higher is better."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]
OURS = "filter and rank"
GROUNDEDNESS = "groundedness alone"
PARTS = {
    "filter, no p_genuine": 4.0 * pl.col("genuine").cast(pl.Float64)
    + 2.0 * pl.col("copy").not_().cast(pl.Float64)
    + pl.col("groundedness"),
    GROUNDEDNESS: 2.0 * pl.col("copy").not_().cast(pl.Float64) + pl.col("groundedness"),
    "p_genuine alone": pl.col("p_genuine"),
    "a random survivor": pl.col("genuine").cast(pl.Float64),
}
"""Parts of what selects: the flag of the rules with groundedness, the latter, p_genuine, and the flag."""
BASELINES: Mapping[str, pl.Expr] = {
    "answer PMI": pl.col("answer_pmi"),
    "MiniLM cosine": pl.col("cos_answer_best"),
    "lowest perplexity": pl.col("mean_logprob"),
    "longest": pl.col("turn").str.len_chars().cast(pl.Float64),
}
"""First looks at the same job; `random` beside them is in every selection."""


def scores(ranked: pl.DataFrame) -> dict[str, Floats]:
    """By name, shape (n,) each; NaN where unknown. Left out is what needs a column that is not there or all null."""
    found = {OURS: -ranked["rank"].cast(pl.Float64).to_numpy()}
    for name, expression in {**PARTS, **BASELINES}.items():
        if all(column in ranked.columns for column in expression.meta.root_names()):
            values = ranked.select(expression.cast(pl.Float64)).to_series()
            if values.null_count() < len(values):
                found[name] = values.to_numpy()
    return found


def orders(ranked: pl.DataFrame) -> dict[str, Floats]:
    """Those of the scores that compare turns of different sites, with `groundedness` as it is given out."""
    found = {"groundedness": ranked["groundedness"].to_numpy()}
    if ranked["p_genuine"].null_count() < len(ranked):
        found["groundedness × p_genuine"] = (ranked["groundedness"] * ranked["p_genuine"].fill_null(0.5)).to_numpy()
    named = scores(ranked)
    return found | {name: named[name] for name in ("p_genuine alone", *BASELINES) if name in named}
