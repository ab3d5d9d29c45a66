"""What choosing did to variety: the chosen turns beside random candidates and random survivors of the same sites."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import polars as pl

from rerank.variety import Variety, compare, mean
from selfplay.choosing.selection import UNBARRED

DRAWS = 5
"""Random turns are drawn so many times, by a hash of what they are, and their figures averaged."""
TOLERATED = 0.1
"""The share of distinct-2 that selection may cost before the table says so."""
RESTORING = 0.7
"""A diversity that brought even choices made for sameness back within `TOLERATED` of random ones on judged turns."""


def measure(table: pl.DataFrame, diversity: float = 0.0) -> dict[str, Any]:
    """What the run records of variety; empty where nothing was chosen.

    `sites`, the `diversity` they were chosen with, and `candidate`, `survivor`, `selected` as `Variety` in JSON types.
    Each holds as many turns of each site as were chosen there. A survivor is any turn that no rule flagged and the
    token limit did not cut, unless cut turns may be chosen.

    Args:
        table: One row per candidate: `site_id, turn, selected, rejected_for`.
    """
    table = table.select(
        pl.col("site_id"),
        pl.col("turn").fill_null(""),
        pl.col("selected"),
        (pl.col("selected") | pl.col("rejected_for").is_in([*UNBARRED, "below_minimum"])).alias("survivor"),
        pl.col("selected").sum().over("site_id").alias("wanted"),
    ).filter(pl.col("wanted") > 0)
    if table.is_empty():
        return {}
    candidates = [drawn(table, seed) for seed in range(DRAWS)]
    survivors = [drawn(table.filter("survivor"), seed) for seed in range(DRAWS)]
    found = compare([*candidates, *survivors, table.filter("selected")["turn"].to_list()])
    return {
        "sites": table["site_id"].n_unique(),
        "diversity": diversity,
        "candidate": asdict(mean(found[:DRAWS])),
        "survivor": asdict(mean(found[DRAWS:-1])),
        "selected": asdict(found[-1]),
    }


def drawn(table: pl.DataFrame, seed: int) -> list[str]:
    """Of each site `wanted` random turns; which ones depends on site, turn and seed alone."""
    keys = [
        zlib.crc32(f"{seed}\0{site}\0{turn}".encode()) for site, turn in table.select("site_id", "turn").iter_rows()
    ]
    table = table.with_columns(pl.Series("key", keys, pl.Int64))
    return table.filter(pl.col("key").rank("ordinal").over("site_id") <= pl.col("wanted"))["turn"].to_list()


def lost(measured: Mapping[str, Any]) -> float:
    """The share of a random survivor's distinct-2 that the chosen turns lack; negative where they have more."""
    before = measured["survivor"]["distinct_2"]
    return 1 - measured["selected"]["distinct_2"] / before if before else 0.0


def lines(measured: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of a table, and a warning where the chosen turns have become uniform. None where nothing was chosen."""
    if not measured:
        return []
    columns = [Variety(**measured[name]) for name in ("candidate", "survivor", "selected")]

    def row(name: str, *values: str) -> tuple[str, str]:
        return name, "".join(f"{value:<18}" for value in values).rstrip()

    rows = [row(f"variety, {columns[-1].turns} turns of", "random candidates", "random survivors", "selected")]
    for name, what in (("questions", "with a question mark"), ("common_opening_share", "the most common opening")):
        rows.append(row(f"  {what}", *(f"{getattr(one, name):.0%}" for one in columns)))
    rows[-1] = rows[-1][0], f"{rows[-1][1]} {columns[-1].common_opening!r}"
    rows.append(row("  words per turn", *(f"{one.words:.1f}" for one in columns)))
    for name, what in (
        ("openings", "distinct openings"),
        ("distinct_1", "distinct-1"),
        ("distinct_2", "distinct-2"),
        ("self_bleu", "self-BLEU, high is uniform"),
    ):
        # No set with a word has distinct words of 0: there was nothing to compare, as where a drawn turn is blank.
        nothing = name.startswith("distinct") and not any(getattr(one, name) for one in columns)
        rows.append(row(f"  {what}", *("–" if nothing else f"{getattr(one, name):.2f}" for one in columns)))
    if lost(measured) > TOLERATED:
        more = RESTORING if measured["diversity"] < RESTORING else 1
        told = f"distinct-2 is {lost(measured):.0%} below a random survivor's; --diversity {more:g} restores it"
        rows.append(("selection costs variety", told))
    return rows
