"""The `rank` verb's work: rows of a file → missing signals measured → ranked → chosen if asked → written back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

import rerank
from selfplay import variety
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.turnrows import left_out, read_turn_rows, take_from_rows, write_turn_rows
from selfplay.learned import load_weights
from selfplay.selection import encoder, select
from selfplay.signals.measure import SIGNALS, available_tiers
from selfplay.signals.tiers import CHOICES, Measurer

ADDED = ("groundedness", "rank", "part_text", "part_embedding", "part_likelihood", "copy", "cut", "ranked_with")
CHOSEN = ("selected", "rejected_for")
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


@dataclass(frozen=True, slots=True)
class Choosing:
    """What `selfplay.selection.select` is asked for."""

    select: int = 1
    diversity: float = 0.0
    min_groundedness: float = 0.0
    allow_truncated: bool = False


def rank_file(
    source: str,
    out: str,
    weights: str | None,
    tiers: str,
    quarantine: Quarantine,
    choosing: Choosing | None = None,
) -> Iterator[str]:
    """Ranks the turns of `source` and writes the rows to `out`; yields lines about what was done.

    Args:
        choosing: Also choose among the turns of each site.

    Raises:
        UsageError: A file that cannot be read or written, weights that cannot be used.
        SelfplayError: A tier that was asked for by name and cannot be measured.
        TooManyBadRows: More bad rows than allowed, decided before anything is written.
    """
    loaded = load_weights(weights)
    table = read_turn_rows(source, quarantine)
    quarantine.check()
    table = take_from_rows(table, CARRIED)
    with Measurer(CHOICES[tiers], {"weights": loaded.measured_with}, optional=tiers == "auto") as measurer:
        table = measurer(table)
        yield from measurer.notes
    ranked = rerank.rank(table, loaded)
    if choosing is not None:
        ranked = _chosen(ranked, choosing)
    written = write_turn_rows(ranked, out, ADDED if choosing is None else (*ADDED, *CHOSEN))
    used = ", ".join(sorted(ranked["ranked_with"].unique().to_list())) or "nothing"
    yield f"{written:,} turns at {table['site_id'].n_unique():,} sites ranked with {used}"
    if choosing is not None:
        yield from _about(ranked, choosing.diversity)
    yield from left_out(quarantine)


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
