"""How often the best-ranked turn of a context is genuine, against a random one and against the best there is.

Cross-validated by context: no turn is ranked by weights that saw another turn of its context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rerank.learn import train
from rerank.rank import rank

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % bootstrap interval over contexts."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def cross_validate(
    table: pl.DataFrame, folds: int = 5, seed: int = 0, by: str = "site_id", **options: Any
) -> pl.DataFrame:
    """Ranks every turn with weights trained on the other folds' contexts; `options` go to `rerank.learn.train`.

    Args:
        table: Judged turns as `rerank.learn.train` takes them.
    """
    contexts = sorted(table[by].unique().to_list())
    assigned = np.random.default_rng(seed).permutation(len(contexts)) % folds
    fold_of = pl.DataFrame({by: contexts, "_fold": assigned})
    marked = table.with_row_index("_row").join(fold_of, on=by, how="left", maintain_order="left")
    parts = []
    for fold in range(folds):
        weights = train(marked.filter(pl.col("_fold") != fold).drop("_fold", "_row"), **options)
        parts.append(rank(marked.filter(pl.col("_fold") == fold), weights, by))
    return pl.concat(parts).sort("_row").drop("_fold", "_row")


def selected_genuine(
    table: pl.DataFrame, by: str = "site_id", resamples: int = 2000, seed: int = 0
) -> Mapping[str, Estimate]:
    """Share genuine of the turn of rank 1, with the ratios to a random candidate and to the oracle.

    Args:
        table: `by`, `rank` and `label` (`follow_up` is genuine), one row per candidate.

    Returns:
        selected, random, oracle (shares of contexts), ratio_random, ratio_oracle; each context counts once.
    """
    genuine = (pl.col("label") == "follow_up").cast(pl.Float64)
    sites = table.group_by(by, maintain_order=True).agg(
        genuine.filter(pl.col("rank") == pl.col("rank").min()).first().alias("selected"),
        genuine.mean().alias("random"),
        genuine.max().alias("oracle"),
    )
    values = sites.select("selected", "random", "oracle").to_numpy()
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    means = values[draws].mean(axis=1)
    found = {name: _estimate(values.mean(axis=0)[i], means[:, i]) for i, name in enumerate(sites.columns[1:])}
    for i, name in ((1, "random"), (2, "oracle")):
        ratios = means[:, 0] / np.maximum(means[:, i], 1e-9)
        found[f"ratio_{name}"] = _estimate(found["selected"].value / max(found[name].value, 1e-9), ratios)
    return found


def auc(positive: Floats, negative: Floats) -> float:
    """Probability that a positive's score exceeds a negative's, ties counted half (Mann-Whitney U / mn)."""
    if not len(positive) or not len(negative):
        return float("nan")
    ranks = pl.Series(np.concatenate([positive, negative])).rank("average").to_numpy()
    wins = ranks[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(wins / (len(positive) * len(negative)))


def figures(ranked: pl.DataFrame, by: str = "site_id") -> dict[str, float]:
    """What the weights file records of a cross-validation: AUC, Spearman with the grade, selected genuine."""
    score = ranked["groundedness"].to_numpy()
    follow = (ranked["label"] == "follow_up").to_numpy()
    near = ranked["label"].is_in(["follow_up", "off_topic", "generic"]).to_numpy()
    grade = ranked["grade"].cast(pl.Float64)
    found = {
        "auc": auc(score[follow], score[~follow]),
        "auc_near": auc(score[follow], score[near & ~follow]),
        "spearman": float(pl.select(pl.corr(ranked["groundedness"], grade, method="spearman")).item()),
        "mae": float(np.abs(score - grade.to_numpy() / 3).mean()),
    }
    for name, estimate in selected_genuine(ranked, by, resamples=1).items():
        found[name] = estimate.value
    return {name: round(value, 4) for name, value in found.items()}


def _estimate(value: float, resampled: Floats) -> Estimate:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high))
