"""The `rank` verb's work: rows of a file → missing signals measured → ranked → the rows written back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

import rerank
from selfplay.errors import UsageError
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.turnrows import left_out, read_turn_rows, take_from_rows, write_turn_rows
from selfplay.learned import load_weights
from selfplay.signals.measure import SIGNALS
from selfplay.signals.tiers import Measurer, SignalModels, wanted
from selfplay.signals.writer import scorer_for
from selfplay.terminal import printable
from selfplay.wording import with_wording

PARTS = ("part_text", "part_wording", "part_embedding", "part_likelihood")
ADDED = ("groundedness", "rank", *PARTS, "copy", "cut", "ranked_with")
CARRIED = pl.Schema(
    {
        **{name: pl.Float64() for names in SIGNALS.values() for name in names},
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
        scorer_model: Measures the likelihoods; None is the shipped one, `self` what wrote the turns.
        cross_encoder: Measures the cross tier; None leaves it out.
        explain: Adds the column `rank_explanation`.
        explain_ids: Rows to be explained in full in the lines about what was done.
    """

    weights: str | None = None
    tiers: str = "auto"
    scorer_model: str | None = None
    cross_encoder: str | None = None
    explain: bool = False
    explain_ids: tuple[str, ...] = ()


def rank_file(source: str, out: str, how: Ranking, quarantine: Quarantine) -> Iterator[str]:
    """Ranks the turns of `source` and writes the rows to `out`; yields lines about what was done.

    Raises:
        UsageError: A file that cannot be read or written, weights that cannot be used, an id that no row has.
        SelfplayError: A tier or model that was asked for by name and cannot measure.
        TooManyBadRows: More bad rows than allowed, decided before anything is written.
    """
    weights = load_weights(how.weights)
    table = read_turn_rows(source, quarantine)
    quarantine.check()
    _known(how.explain_ids, table, source)
    scorer, tables = scorer_for(how.scorer_model, [take_from_rows(table, CARRIED)])
    learned = {"weights": weights.measured_with}
    models = SignalModels(scorer, how.cross_encoder)
    tiers = wanted(how.tiers, learned, models)
    with Measurer(tiers, learned, optional=how.tiers == "auto", models=models) as measurer:
        table = measurer(next(tables))
        yield from measurer.notes
    ranked = rerank.rank(with_wording(table), weights)
    added = (*ADDED, "part_cross") if ranked["part_cross"].is_not_null().any() else ADDED
    if how.explain:
        ranked = ranked.with_columns(
            rank_explanation=pl.Series(rerank.brief(ranked, weights), dtype=pl.List(pl.String))
        )
        added = (*added, "rank_explanation")
    written = write_turn_rows(ranked, out, added)
    for key in how.explain_ids:
        yield from _page(ranked, weights, key)
    used = ", ".join(sorted(ranked["ranked_with"].unique().to_list())) or "nothing"
    yield f"{written:,} turns at {table['site_id'].n_unique():,} sites ranked with {used}"
    yield from left_out(quarantine)


def _known(ids: tuple[str, ...], table: pl.DataFrame, source: str) -> None:
    have = table["id"]
    for key in ids:
        if not (have == key).any():
            first = ", ".join(printable(str(name), 60) for name in have.drop_nulls().head(3))
            told = f"the first ones are {first}" if first else "no row has one"
            raise UsageError(f"{source}: no row with id {printable(key, 60)}; {told}")


def _page(ranked: pl.DataFrame, weights: rerank.Weights, key: str) -> Iterator[str]:
    for row in ranked.with_row_index().filter(pl.col("id") == key)["index"].to_list():
        candidates = int((ranked["site_id"] == ranked["site_id"][row]).sum())
        yield f"{key}: {' '.join(ranked['turn'][row].split())}"
        yield f"  rank {ranked['rank'][row]} of {candidates} at its site"
        yield from (f"  {line}" for line in rerank.full(ranked, row, weights))
        yield ""
