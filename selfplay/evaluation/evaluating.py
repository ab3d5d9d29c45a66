"""From judged turns to an evaluation: signals, folds, figures, files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl

from rerank.learn import WRITTEN
from selfplay.atomic import replacing
from selfplay.errors import UsageError
from selfplay.evaluation import held_out, report
from selfplay.evaluation.held_out import Say
from selfplay.learned import load_rules, load_weights
from selfplay.learning.training import read_judged, with_signals
from selfplay.signals.measure import SIGNALS, mismatches
from selfplay.signals.tiers import CHOICES
from selfplay.terminal import one_line

KEPT = ("id", "context", "site_id", "source", "label", "grade", "fold", *held_out.SURVIVAL, "groundedness", "rank",
        "copy", "cut", "ranked_with")  # fmt: skip
"""Columns of `turns.parquet`."""


def evaluate(
    judged: Path,
    signals: Path | None,
    out: Path | None,
    say: Say,
    *,
    tiers: str = "all",
    folds: int = 5,
    seed: int = 0,
    learned: tuple[str | None, str | None] | None = None,
    apart: bool = True,
) -> dict[str, Any]:
    """All figures, JSON types; see `report`. Writes `evaluation.json`, `turns.parquet` and the plot into `out`.

    Args:
        judged: As `training.read_judged` takes it.
        signals: As `training.with_signals` takes it.
        tiers: Of `tiers.CHOICES`; nothing is measured for `text`.
        learned: Rule set and weights (None: the shipped one) to take as they are; by default both are learned anew for
            every fold.
        apart: Whether to rank each generator's turns by what the others taught, too.

    Raises:
        UsageError: A file cannot be read, or there is too little to learn from.
    """
    if learned is None and find_spec("sklearn") is None:
        raise UsageError("evaluating learns anew and needs scikit-learn: pip install 'selfplay-turns[train]'")
    table = read_judged(judged)
    if (table["source"] == WRITTEN).all():
        raise UsageError(f"{judged}: every turn is `written`; selecting is evaluated on sampled ones")
    if learned is None and table["context"].n_unique() < folds:
        raise UsageError(f"{judged}: {table['context'].n_unique()} conversations make no {folds} folds")
    if signals is not None and not CHOICES[tiers]:
        raise UsageError(f"--signals {signals}: --tiers {tiers} measures none and reads none; leave one out")
    if signals is not None and not signals.absolute().parent.is_dir():  # measuring takes long: find out now
        raise UsageError(f"{signals}: cannot be written; give a file in a folder that is there")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    models: dict[str, Any] = {}
    unread = table.select("id")
    if CHOICES[tiers]:
        table, models = with_signals(table, signals, tiers=CHOICES[tiers])
        names = [name for tier, names in SIGNALS.items() if tier not in CHOICES[tiers] for name in names]
        unread = table.select("id", *(name for name in names if name in table.columns))
        table = table.drop(names, strict=False)
    about = {
        "judged": str(judged),
        "tiers": tiers,
        "sources": dict(sorted(table["source"].value_counts().iter_rows())),
        "seed": seed,
        "resamples": report.RESAMPLES,
        "measured_with": models,
    }
    try:
        if learned is not None:
            ranked, found = _as_is(table, learned, models)
        else:
            ranked, found = _learned_anew(table, folds, seed, apart, say)
    except ValueError as error:
        raise UsageError(
            f"{judged}: nothing can be learned from it: {one_line(error)}; to judge what was learned elsewhere, "
            "give --no-learning"
        ) from None
    # Baselines may look at signals that filter and ranking went without.
    ranked = ranked.join(unread, on="id", how="left", maintain_order="left")
    found = about | {"learned": found.pop("learned"), **_figures(ranked, seed)} | found
    if out is not None:
        _write(ranked, found, out, say)
    return found


def _as_is(
    table: pl.DataFrame, learned: Sequence[str | None], models: dict[str, Any]
) -> tuple[pl.DataFrame, dict[str, Any]]:
    from rerank.learn import training_hash

    rules, weights = load_rules(learned[0]), load_weights(learned[1])
    for what, record in (("rules", rules.models), ("weights", weights.measured_with)):
        for reason in mismatches(models, record, what).values():
            raise UsageError(reason)
    same = weights.training.get("hash") == training_hash(table)
    ranked = held_out.taken_as_is(table, rules, weights)
    named = {"rules": learned[0] or "shipped", "weights": learned[1] or "shipped", "learned_from_these": same}
    return ranked, {"learned": named}


def _learned_anew(
    table: pl.DataFrame, folds: int, seed: int, apart: bool, say: Say
) -> tuple[pl.DataFrame, dict[str, Any]]:
    ranked, crossing = held_out.cross_validated(table, folds, seed, say)
    found: dict[str, Any] = {"learned": {"folds": folds}}
    sampled = ranked.filter("sampled")
    found["ablation"] = report.ablation_of(sampled, crossing, ranked["sampled"], seed)
    sources = sorted(sampled["source"].unique())
    found["left_out"] = {}
    for source in sources if apart and len(sources) > 1 else ():
        unseen = held_out.without_source(table, source, folds, seed, say)
        found["left_out"][source] = report.left_out_of(unseen, ranked.filter(pl.col("source") == source), seed)
    return ranked, found


def _figures(ranked: pl.DataFrame, seed: int) -> dict[str, Any]:
    sampled = ranked.filter("sampled")
    sources = sorted(ranked["source"].unique())
    written = {WRITTEN: ranked.filter(~pl.col("sampled"))} if WRITTEN in sources else {}
    by_source = {name: sampled.filter(pl.col("source") == name) for name in sources if name != WRITTEN}
    groups = {"sampled": sampled, **(by_source if len(by_source) > 1 else {}), **written}
    return {
        "selection": report.selection_of(sampled, seed),
        "order": {name: report.order_of(rows, seed) for name, rows in groups.items()},
    }


def _write(ranked: pl.DataFrame, found: dict[str, Any], out: Path, say: Say) -> None:
    with replacing(out / "evaluation.json") as path:
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    with replacing(out / "turns.parquet") as path:
        ranked.select(name for name in KEPT if name in ranked.columns).write_parquet(path)
    if find_spec("matplotlib") is None:
        say("no plot, which needs matplotlib: pip install 'selfplay-turns[plot]'")
        return
    from selfplay.evaluation.plot import plot

    plot(found["selection"], out)
