"""Fuses the signals of a turn into one `groundedness` in 0..1, the judge's expected grade divided by 3.

An additive model on log-odds (see `rerank.weights`), with a cap for copies: likelihood and overlap alike favour a
turn that repeats the answer, and repeating is grade 1 at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from rerank.anchors import is_copy, text_signals
from rerank.probe import GRADE, state_grades
from rerank.weights import TIER_SETS, TIER_SIGNALS, Model, Weights

COPY_CAP = 0.3
"""Highest groundedness of a copy: under grade 1 of 3."""

Floats = npt.NDArray[np.float64]


def add_text_signals(table: pl.DataFrame, common: frozenset[str]) -> pl.DataFrame:
    """Adds the text tier's signal columns and `copy` (bool), from `turn`, `answer` and `history` (or `query`)."""
    histories: Sequence[Sequence[str] | None]
    if "history" in table.columns:
        histories = table["history"].to_list()
    else:
        histories = [[query] if query else [] for query in table["query"].to_list()]
    rows = [
        (turn or "", answer or "", history or [])
        for turn, answer, history in zip(table["turn"], table["answer"], histories, strict=True)
    ]
    signals = [text_signals(*row, common) for row in rows]
    return table.with_columns(
        *(pl.Series(name, [found[name] for found in signals], pl.Float64) for name in TIER_SIGNALS["text"]),
        pl.Series("copy", [is_copy(*row) for row in rows], pl.Boolean),
    )


def add_signals(table: pl.DataFrame, weights: Weights) -> pl.DataFrame:
    """`add_text_signals`, and `state_grade` where the weights have a probe.

    Raises:
        ValueError: `turn_state` does not hold what the probe reads.
    """
    table = add_text_signals(table, weights.common_words)
    return table if weights.probe is None else table.with_columns(state_grades(table, weights.probe))


def tier_sets(table: pl.DataFrame, weights: Weights, by: str) -> pl.Series:
    """Per row the richest tier set that has a model and whose signals every turn of its site has.

    One site is always ranked with one model: two scores of different models are comparable only on average. Turns cut
    at the token limit may lack signals (a run does not measure what it will not choose): they hold no other back.
    """
    cut = (pl.col("finish_reason") == "length").fill_null(False) if "finish_reason" in table.columns else pl.lit(False)
    spoken = pl.col("turn").fill_null("").str.strip_chars() != ""
    usable = []
    for name in reversed(TIER_SETS):
        if name not in weights.models:
            continue
        needed = [tier for tier in name.split("+") if tier != "text"]
        conditions = [
            pl.any_horizontal(pl.col(c).is_not_null() for c in TIER_SIGNALS[tier] if c in table.columns)
            if any(c in table.columns for c in TIER_SIGNALS[tier])
            else pl.lit(False)
            for tier in needed
        ]
        have = pl.all_horizontal(*conditions) if conditions else pl.lit(True)
        # A site where every turn is blank has nothing to be measured and says so by the simplest model.
        complete = ((have | ~spoken | cut).all() & ((have & spoken).any() | pl.lit(name == "text"))).over(by)
        usable.append((name, complete))
    choice = pl.coalesce(*(pl.when(complete).then(pl.lit(name)) for name, complete in usable), pl.lit("text"))
    return table.select(choice.alias("ranked_with"))["ranked_with"]


def contributions(table: pl.DataFrame, model: Model) -> dict[str, Floats]:
    """Per signal of the model its log-odds for each row; 0 where the signal is null."""
    found: dict[str, Floats] = {}
    for signal, shape in model.shapes.items():
        if signal not in table.columns:
            found[signal] = np.zeros(len(table))
            continue
        values = table[signal].cast(pl.Float64).fill_nan(None).to_numpy()
        found[signal] = np.where(np.isnan(values), 0.0, np.interp(np.nan_to_num(values), shape.knots, shape.values))
    return found


def fuse(table: pl.DataFrame, weights: Weights, by: str) -> pl.DataFrame:
    """Adds `groundedness` (0..1), its parts in log-odds, `copy` and `ranked_with`.

    The parts are `part_text`, `part_wording`, `part_embedding`, `part_state`, `part_likelihood` and `part_cross`; null
    for a tier that was not used. The signals that are computed here are taken away again.

    Blank turns have groundedness 0 and null parts. The parts, the model's intercept and the cap are all there is:
    groundedness = sigmoid(intercept + parts), at most `COPY_CAP` for a copy.

    Raises:
        ValueError: `turn_state` does not hold what the probe of the weights reads.
    """
    table = add_signals(table, weights)
    chosen = tier_sets(table, weights, by)
    blank = (table["turn"].fill_null("").str.strip_chars() == "").to_numpy()
    copied = table["copy"].to_numpy()
    total = np.zeros(len(table))
    parts: dict[str, Floats] = {tier: np.full(len(table), np.nan) for tier in TIER_SIGNALS}
    for name in chosen.unique().to_list():
        mask = (chosen == name).to_numpy() & ~blank
        model = weights.models[name]
        rows = table.filter(pl.Series(mask))
        by_signal = contributions(rows, model)
        for tier in name.split("+"):
            parts[tier][mask] = _sum(by_signal, TIER_SIGNALS[tier], len(rows))
        total[mask] = model.intercept + _sum(by_signal, tuple(by_signal), len(rows))
    score = 1 / (1 + np.exp(-np.clip(total, -30, 30)))
    score = np.where(blank, 0.0, np.where(copied, np.minimum(score, COPY_CAP), score))
    return table.with_columns(
        pl.Series("groundedness", score),
        *(pl.Series(f"part_{tier}", values).fill_nan(None) for tier, values in parts.items()),
        chosen,
    ).drop(*TIER_SIGNALS["text"], *(() if weights.probe is None else (GRADE,)))


def _sum(by_signal: Mapping[str, Floats], names: Sequence[str], rows: int) -> Floats:
    total = np.zeros(rows)
    for name in names:
        if name in by_signal:
            total += by_signal[name]
    return total
