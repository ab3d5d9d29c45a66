"""How well each tier set ranks turns of conversations that its weights were not learned from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from rerank.evaluation import CrossValidation, assign_folds, figures
from rerank.learn import WRITTEN, learnable
from rerank.weights import Weights


def held_out(table: pl.DataFrame, folds: int = 5, seed: int = 0, **options: Any) -> dict[str, pl.DataFrame]:
    """By tier set that the table's signals allow: every turn ranked by weights of the other folds' conversations.

    Sets without wording are left out where there is wording: only who calls `rerank` on a bare table meets them.

    Args:
        table: Judged turns as `rerank.learn.train` takes them; `context` says which belong to one conversation, else
            `site_id` does.
        options: For `rerank.learn.fit`.
    """
    by = "context" if "context" in table.columns else "site_id"
    crossing = CrossValidation(table, assign_folds(table[by], folds, seed), **options)
    sets = learnable(table.columns)
    names = [name for name in sets if "wording" in name] or sets
    ranked = {name: crossing.rank(sets=(name, "text")) for name in names}
    return {name: found for name, found in ranked.items() if (found["ranked_with"] == name).any()}


def report(ranked: dict[str, pl.DataFrame]) -> dict[str, dict[str, dict[str, float]]]:
    """`rerank.evaluation.figures` by tier set, and in it of `sampled` and of `written` turns that the set ranked."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, table in ranked.items():
        used = table.filter(pl.col("ranked_with") == name)
        written = used["source"] == WRITTEN if "source" in used.columns else pl.repeat(False, len(used), eager=True)
        kinds = {"sampled": used.filter(~written), WRITTEN: used.filter(written)}
        found[name] = {kind: figures(part) for kind, part in kinds.items() if len(part)}
    return found


def with_figures(weights: Weights, found: dict[str, dict[str, dict[str, float]]]) -> Weights:
    """The weights with what `report` found, for their file; figures that are not defined are left out."""
    finite = {
        name: {
            kind: {key: value for key, value in values.items() if np.isfinite(value)} for kind, values in kinds.items()
        }
        for name, kinds in found.items()
    }
    return replace(weights, cv=finite)
