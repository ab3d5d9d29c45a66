"""The `rank` verb's work: rows of a file → missing signals measured → ranked → the rows written back."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

import rerank
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.turnrows import left_out, read_turn_rows, take_from_rows, write_turn_rows
from selfplay.learned import load_weights
from selfplay.signals.measure import SIGNALS
from selfplay.signals.tiers import CHOICES, Measurer

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


def rank_file(source: str, out: str, weights: str | None, tiers: str, quarantine: Quarantine) -> Iterator[str]:
    """Ranks the turns of `source` and writes the rows to `out`; yields lines about what was done.

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
    written = write_turn_rows(ranked, out, ADDED)
    used = ", ".join(sorted(ranked["ranked_with"].unique().to_list())) or "nothing"
    yield f"{written:,} turns at {table['site_id'].n_unique():,} sites ranked with {used}"
    yield from left_out(quarantine)
