"""What `rank --explain` and `--explain-id` say: `rerank.explain`, for the rows of a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

import rerank
from selfplay.errors import UsageError
from selfplay.terminal import one_line, printable

SHOWN = 600
"""Characters of a turn."""


def explained(ranked: pl.DataFrame, weights: rerank.Weights) -> pl.DataFrame:
    """Adds `rank_explanation`, a list of a few lines for each row."""
    return ranked.with_columns(rank_explanation=pl.Series(rerank.brief(ranked, weights), dtype=pl.List(pl.String)))


def pages(ranked: pl.DataFrame, weights: rerank.Weights, ids: Sequence[str]) -> Iterator[str]:
    """All that made the score of each turn that has one of these ids, as lines."""
    for key in dict.fromkeys(ids):
        for row in ranked.with_row_index().filter(pl.col("id") == key)["index"].to_list():
            candidates = int((ranked["site_id"] == ranked["site_id"][row]).sum())
            yield f"{key}: {one_line(ranked['turn'][row], SHOWN)}"
            yield f"  rank {ranked['rank'][row]} of {candidates} at its site"
            yield from (f"  {line}" for line in rerank.full(ranked, row, weights))
            yield ""


def refuse_unknown(wanted: Sequence[str], ids: pl.Series, source: str) -> None:
    """Raises UsageError for an id that no row has."""
    have = {*ids.drop_nulls()}
    for key in wanted:
        if key not in have:
            first = ", ".join(printable(str(name), 60) for name in ids.drop_nulls().head(3))
            told = f"the first ones are {first}" if first else "no row has one"
            raise UsageError(f"{source}: no row with id {printable(key, 60)}; {told}")
