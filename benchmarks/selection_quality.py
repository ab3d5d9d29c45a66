"""How often the turn that filter and rank select is genuine, against a random candidate and against the best there is.

Cross-validated by conversation: rules, calibration and weights are learned anew in every fold from the judged turns of
the other conversations, and select among the really sampled turns of the fold. Intervals: bootstrap over
conversations.

    selfplay train filters/judged --rules /tmp/rules.json --signals signals.parquet
    python benchmarks/selection_quality.py signals.parquet

Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl

import filters
import filters.learning.learn
import rerank
import rerank.learn
from rerank.evaluate import selected_genuine
from selfplay.training import read_judged

ROOT = Path(__file__).parent.parent


def held_out(table: pl.DataFrame, folds: int, seed: int) -> pl.DataFrame:
    """Every turn ranked by rules and weights that saw none of its conversation; `label` is the judge's again."""
    contexts = sorted(table["context"].unique())
    fold_of = dict(zip(contexts, np.random.default_rng(seed).permutation(len(contexts)) % folds, strict=True))
    fold = table["context"].replace_strict(fold_of)
    parts = []
    for number in range(folds):
        rules = filters.learning.learn.train(table.filter(fold != number), {}, seed)
        weights = rerank.learn.train(table.filter(fold != number))
        labelled = filters.label(table.filter(fold == number).drop("label"), rules)
        ranked = rerank.rank(labelled, weights, by="site_id").drop("label")
        parts.append(ranked.join(table.select("id", "label"), on="id", how="left", maintain_order="left"))
    return pl.concat(parts, how="diagonal_relaxed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("signals", type=Path, help="what `selfplay train --signals` kept")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    table = read_judged(ROOT / "filters" / "judged").join(
        pl.read_parquet(given.signals), on="id", how="left", maintain_order="left"
    )
    turns = held_out(table, given.folds, given.seed).filter(pl.col("source") != "written")
    by_pmi = turns.with_columns(
        rank=pl.col("answer_pmi").rank("ordinal", descending=True).over("site_id").fill_null(len(turns))
    )
    report: dict[str, object] = {"conversations": turns["site_id"].n_unique(), "turns": len(turns)}
    for way, ranked in (("filter and rank", turns), ("answer PMI alone", by_pmi)):
        for name, estimate in selected_genuine(ranked).items():
            print(f"{way:18} {name:13} {estimate}")
            report[f"{way}: {name}"] = [round(x, 3) for x in (estimate.value, estimate.low, estimate.high)]
    print(json.dumps(report))


if __name__ == "__main__":
    main()
