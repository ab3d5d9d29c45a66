"""The `rank` verb's work: rows of a file → missing signals measured → ranked → chosen if asked → written back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

import rerank
from selfplay.choosing import variety
from selfplay.choosing.selection import bar, encoder, select
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.turnrows import left_out, read_turn_rows, take_from_rows, write_turn_rows
from selfplay.learned import load_weights, reads
from selfplay.showing.ranking import explained, pages, refuse_unknown
from selfplay.signals.measure import CONTROL_SIGNALS, NUMBERS, SIGNALS, available_tiers
from selfplay.signals.tiers import Measurer, SignalModels, wanted
from selfplay.signals.wording import WORDING, with_wording
from selfplay.signals.writer import scorer_for

if TYPE_CHECKING:
    from selfplay.judge_ranking import JudgeRanking

PARTS = ("part_text", "part_wording", "part_embedding", "part_state", "part_likelihood")
ADDED = ("groundedness", "rank", *PARTS, "copy", "cut", "ranked_with")
CHOSEN = ("selected", "rejected_for")
CARRIED = pl.Schema(
    {
        **dict.fromkeys(NUMBERS, pl.Float64()),
        "genuine": pl.Boolean(),
        "p_genuine": pl.Float64(),
        "temperature": pl.Float64(),
        "sample": pl.Int64(),
        "model": pl.String(),
    }
)
"""What ranking takes from the rows themselves where they have it."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """How the rows are ranked.

    Attributes:
        weights: A file; None is the shipped one.
        tiers: As `--tiers`.
        scorer_model: Scores turns; None is the shipped one, `self` what wrote the turns.
        cross_encoder: Measures the cross tier; None leaves it out.
        control: Also measures the control signals, which no weights read.
        explain: Adds the column `rank_explanation`.
        explain_ids: Rows that are explained in full in the lines about what was done.
    """

    weights: str | None = None
    tiers: str = "auto"
    scorer_model: str | None = None
    cross_encoder: str | None = None
    control: bool = False
    explain: bool = False
    explain_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choosing:
    """What `selfplay.choosing.selection.select` is asked for."""

    select: int = 1
    diversity: float = 0.0
    min_groundedness: float = 0.0
    allow_truncated: bool = False


def rank_file(
    source: str,
    out: str,
    how: Ranking,
    quarantine: Quarantine,
    choosing: Choosing | None = None,
    judge: JudgeRanking | None = None,
) -> Iterator[str]:
    """Ranks the turns of `source` and writes the rows to `out`; yields lines about what was done.

    Args:
        choosing: Also choose among the turns of each site.
        judge: Orders the best of each site anew.

    Raises:
        UsageError: A file that cannot be read or written, weights that cannot be used, an id that no row has.
        SelfplayError: A tier or model that was asked for by name and cannot measure.
        TooManyBadRows: More bad rows than allowed, decided before anything is written.
    """
    load_weights(how.weights)  # a mistake there ends it before anything is read
    table = read_turn_rows(source, quarantine)
    quarantine.check()
    refuse_unknown(how.explain_ids, table["id"], source)
    ranked, added, lines = rank_table(take_from_rows(table, CARRIED), how, choosing, judge)
    write_turn_rows(ranked, out, added)
    yield from lines
    yield from left_out(quarantine)


def rank_table(
    table: pl.DataFrame, how: Ranking, choosing: Choosing | None = None, judge: JudgeRanking | None = None
) -> tuple[pl.DataFrame, tuple[str, ...], list[str]]:
    """Ranks turns that are in memory already.

    Args:
        table: As `read_turn_rows` or `selfplay.tables.with_context` makes it, with whatever signals are known.

    Returns:
        The table with what was added, the names of that, and lines about what was done.

    Raises:
        UsageError, SelfplayError: As `rank_file`.
    """
    loaded = load_weights(how.weights)
    scorer, tables = scorer_for(how.scorer_model, [table])
    learned, models = {"weights": loaded.measured_with}, SignalModels(scorer, how.cross_encoder)
    auto = how.tiers == "auto"
    measuring = Measurer(
        wanted(how.tiers, learned, models),
        learned,
        optional=auto,
        reads={"cross", *reads(weights=loaded)} if auto else tuple(SIGNALS),
        models=models,
        layer=loaded.layer,
    )
    with measuring as measurer:
        table = measurer(next(tables))
        if how.control:
            table = measurer.control(table)
    ranked = rerank.rank(with_wording(table), loaded)
    told = [*measurer.notes, *pages(ranked, loaded, how.explain_ids)]
    parts = ("part_cross",) if ranked["part_cross"].is_not_null().any() else ()
    if how.explain:
        ranked, parts = explained(ranked, loaded), (*parts, "rank_explanation")
    ranked = ranked.drop(WORDING)
    if judge:  # what may not be selected needs no judge
        ranked = judge(bar(ranked, choosing.min_groundedness, choosing.allow_truncated) if choosing else ranked)
    if choosing is not None:
        ranked = _chosen(ranked, choosing)
    control = CONTROL_SIGNALS if how.control else ()
    added = (*ADDED, *parts, *control, *(judge.columns if judge else ()), *(CHOSEN if choosing else ()))
    used = ", ".join(sorted(ranked["ranked_with"].unique().to_list())) or "nothing"
    told.append(f"{len(ranked):,} turns at {table['site_id'].n_unique():,} sites ranked with {used}")
    if judge:
        told += judge.report()
    if choosing is not None:
        told += _about(ranked, choosing.diversity)
    return ranked, added, told


def _chosen(ranked: pl.DataFrame, choosing: Choosing) -> pl.DataFrame:
    with_vectors = ranked["ranked_with"].str.contains("embedding").any() and "embedding" in available_tiers()[0]
    encode = encoder(("embedding",)) if with_vectors else None
    return select(
        ranked, choosing.min_groundedness, choosing.allow_truncated, choosing.select, choosing.diversity, encode
    )


def _about(ranked: pl.DataFrame, diversity: float) -> Iterator[str]:
    """Lines about what was chosen: how many, why not the others, and what it did to variety."""
    served = ranked.filter("selected")["site_id"].n_unique()
    without = ranked["site_id"].n_unique() - served
    yield f"{ranked['selected'].sum():,} turns selected at {served:,} sites; {without:,} sites without one"
    reasons = ranked["rejected_for"].drop_nulls().value_counts(sort=True).iter_rows()
    if told := ", ".join(f"{reason} {count:,}" for reason, count in reasons):
        yield f"not selected: {told}"
    yield from (f"{name:30}{value}" for name, value in variety.lines(variety.measure(ranked, diversity)))
