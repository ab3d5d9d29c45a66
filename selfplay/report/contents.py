"""What a page about results holds, gathered in two passes over them: figures first, then the browser's data."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import polars as pl

from selfplay.errors import UsageError
from selfplay.report import plots
from selfplay.report.packing import Packer
from selfplay.report.sections import SAID, Section, kept_or_chosen, only_unjudged, sections
from selfplay.report.tally import ROUND, Tally
from selfplay.results import Results, Tables
from selfplay.summary import ESTIMATE_SITES, share_of
from selfplay.terminal import printable

TEXTS = ("site_id", "turn", "selected", "rejected_for")
NAMED = 4
"""Models and temperatures that the first line names."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a page is made of.

    Attributes:
        lead: One line about the whole.
        options: For the browser, as JSON.
        index: As `packing.Packer.index` makes it.
        shown: Sites in the browser, of `sites`.
        pictures: Whether there are any.
    """

    title: str
    lead: str
    sections: Sequence[Section]
    options: dict[str, Any]
    index: bytes
    sites: int
    shown: int
    pictures: bool
    _chunks: IO[bytes]
    _places: Sequence[tuple[int, int]]

    def chunk(self, number: int) -> bytes:
        """Packed sites.

        Raises:
            IndexError: There are not so many.
        """
        at, length = self._places[number]
        self._chunks.seek(at)
        return self._chunks.read(length)

    def chunks(self) -> Iterator[bytes]:
        """All of them, one in memory at a time."""
        yield from map(self.chunk, range(len(self._places)))


@contextmanager
def gathered(results: Results, most: int, by: Sequence[str] = (), *, served: bool = False) -> Iterator[Contents]:
    """Reads all results.

    Args:
        most: Sites that the browser holds; of more, as many are drawn by a hash of their ids. Figures are of all.
        by: Columns of the input to count labels and to filter by, beside the usual ones.
        served: Chunks come from a server, not with the page.

    Raises:
        UsageError: There is not one turn, a file is damaged, or no row has a column of `by`.
    """
    tally = Tally(by)
    for part in parts(results):
        tally.add(*part)
    if not tally.turns:
        raise UsageError(f"{results.folder} holds no turns, so there is nothing to show")
    if missing := [name for name in by if not any(name == column for column, _, _ in tally.labels)]:
        raise UsageError(f"--by {missing[0]}: no conversation has that column, or too many different values in it")
    with tempfile.TemporaryFile(prefix="selfplay-") as file:
        packer = Packer([name for name in tally.columns() if name not in ("model", "temperature")])
        texts, places = _pack(results, packer, file, tally.share_for(most), tally.share_for(ESTIMATE_SITES))
        shown = len(packer.ids)
        pictures = plots.available()
        yield Contents(
            title=f"{printable(results.folder.resolve().name)}: selfplay {results.verb}",
            lead=_lead(tally, shown),
            sections=sections(results, tally, texts, pictures),
            options={
                "served": served,
                "labels": SAID,
                "judged": not only_unjudged(tally),
                "cleaned": results.verb == "clean",
                "chosen": kept_or_chosen(results),
            },
            index=packer.index(),
            sites=tally.sites,
            shown=shown,
            pictures=pictures,
            _chunks=file,
            _places=places,
        )


def _pack(
    results: Results, packer: Packer, file: IO[bytes], share: float, of_texts: float
) -> tuple[pl.DataFrame, list[tuple[int, int]]]:
    """Packs the sites with a key below `share`; returns the turns of those below `of_texts`, and where chunks lie."""
    texts: list[pl.DataFrame] = []
    places: list[tuple[int, int]] = []

    def put(chunks: Iterator[bytes]) -> None:
        for chunk in chunks:
            places.append((file.tell(), len(chunk)))
            file.write(chunk)

    for sites, turns in parts(results):
        some = drawn(sites, turns, of_texts)[1].select(TEXTS)
        texts.append(some.with_columns(pl.col("selected").fill_null(False)))
        put(packer.add(*drawn(sites, turns, share)))
    put(packer.rest())
    return pl.concat(texts), places


def parts(results: Results) -> Iterator[Tables]:
    """As `Results.parts`; the sites of a play tell their round as a column of the input would."""
    if results.verb != "play":
        yield from results.parts()
        return
    for number, run in enumerate(results.runs(), 1):
        for sites, turns in run.parts():
            extra = [json.dumps({ROUND: number} | json.loads(text or "{}")) for text in sites["extra"]]
            yield sites.with_columns(extra=pl.Series(extra, dtype=pl.String)), turns


def drawn(sites: pl.DataFrame, turns: pl.DataFrame, share: float) -> Tables:
    """The sites with a key below `share`, and their turns."""
    if share >= 1:
        return sites, turns
    keep = [key for key in sites["site_id"] if share_of(key) < share]
    return sites.filter(pl.col("site_id").is_in(keep)), turns.filter(pl.col("site_id").is_in(keep))


def _lead(tally: Tally, shown: int) -> str:
    writers, temperatures = tally.values("model"), tally.values("temperature")
    by = f" by {', '.join(map(printable, writers[:NAMED]))}" if writers else ""
    at = f" at {', '.join(temperatures[:NAMED])}" if temperatures else ""
    text = f"{tally.turns:,} turns{by}{at}, at {tally.sites:,} sites of {tally.conversations:,} conversations."
    if shown < tally.sites:
        text += f" The browser holds {shown:,} of the sites, drawn at random; all figures are of all of them."
    return text
