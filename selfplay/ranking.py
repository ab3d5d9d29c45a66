"""The `rank` verb's work: rows of a file → missing signals measured → ranked → the rows written back."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

import rerank
from selfplay.errors import SelfplayError, UsageError
from selfplay.measure import SIGNALS, available_tiers, measure, mismatches, missing_tiers, signal_versions
from selfplay.quarantine import Quarantine
from selfplay.turnrows import read_turn_rows, take_from_rows, write_turn_rows

WANTED = {"text": (), "text+embedding": ("embedding",), "all": ("embedding", "likelihood")}
ADDED = ("groundedness", "rank", "part_text", "part_embedding", "part_likelihood", "copy", "cut", "ranked_with")
CARRIED = pl.Schema(
    {
        **{name: pl.Float64() for names in SIGNALS.values() for name in names},
        "genuine": pl.Boolean(),
        "p_genuine": pl.Float64(),
        "temperature": pl.Float64(),
        "sample": pl.Int64(),
    }
)
"""What ranking takes from the rows themselves where they have it."""


def rank_file(
    source: str, output: str, weights: str | None, tiers: str, quarantine: str | None, max_bad: str | None
) -> Iterator[str]:
    """Ranks the turns of `source` and writes the rows to `output`; yields lines about what was done.

    Raises:
        UsageError: A file that cannot be read or written, weights that cannot be used.
        SelfplayError: A tier that was asked for and cannot be measured.
        TooManyBadRows: More bad rows than `max_bad`, decided before anything is written.
    """
    try:
        loaded = rerank.load_weights(weights)
    except rerank.WeightsError as error:
        raise UsageError(str(error)) from None
    with Quarantine(quarantine, max_bad) as bad:
        table = read_turn_rows(source, bad)
        bad.rows = max(bad.rows, len(table) + bad.bad)
        bad.check()
        if bad.bad:
            yield f"{bad.bad:,} bad rows left out: " + ", ".join(f"{n:,} × {why}" for why, n in bad.summary().items())
    table = take_from_rows(table, CARRIED)
    table, notes = add_signals(table, loaded, tiers)
    yield from notes
    ranked = rerank.rank(table, loaded)
    written = write_turn_rows(ranked, output, ADDED)
    used = ", ".join(sorted(ranked["ranked_with"].unique().to_list())) or "nothing"
    yield f"{written:,} turns at {table['site_id'].n_unique():,} sites ranked with {used}"


def add_signals(table: pl.DataFrame, weights: rerank.Weights, tiers: str = "auto") -> tuple[pl.DataFrame, list[str]]:
    """Measures the tiers that are wanted and missing, and takes away those that are not wanted.

    Args:
        tiers: `auto` takes what can be had and notes what cannot; any other choice must be met.

    Returns:
        The table and notes on tiers that are left out, one line each.

    Raises:
        SelfplayError: A tier that was asked for by name cannot be measured here, or only by other models than the
            weights were learned with.
    """
    wanted = WANTED["all" if tiers == "auto" else tiers]
    table = table.drop([name for tier, names in SIGNALS.items() if tier not in wanted for name in names], strict=False)
    absent = [tier for tier in missing_tiers(table) if tier in wanted]
    if not absent:
        return table, []
    have, why = available_tiers()
    reasons = {tier: why[tier] for tier in absent if tier not in have}
    notes = []
    for tier in absent:
        try:
            if tier not in reasons:
                table = _measure_one(table, tier, weights)
        except SelfplayError as error:
            reasons[tier] = str(error)
        if tier in reasons:
            if tiers != "auto":
                raise SelfplayError(f"--tiers {tiers}: no {tier} signals: {reasons[tier]}")
            notes.append(f"ranking without {tier} signals: {reasons[tier]}")
    return table, notes


def _measure_one(table: pl.DataFrame, tier: str, weights: rerank.Weights) -> pl.DataFrame:
    from selfplay.embedding import load_embedder
    from selfplay.measure import default_scorer

    if tier == "embedding":
        embedder = load_embedder()
        _refuse_others(signal_versions(embedder), weights)
        return measure(table, {tier}, embedder=embedder)
    scorer, template = default_scorer()
    try:
        _refuse_others(signal_versions(None, template), weights)
        return measure(table, {tier}, scorer=scorer, template=template)
    finally:
        scorer.close()


def _refuse_others(versions: dict[str, object], weights: rerank.Weights) -> None:
    for reason in mismatches(versions, weights.measured_with).values():
        raise SelfplayError(reason)
