"""The folder of a cleaning.

    run.json                     settings, versions, counts, the closing table
    conversations/, turns/       what was judged, in parts that are there whole or not at all; no texts
    to_replace.jsonl, replacements/   with --on-bad replace: contexts that want another turn, and the run that draws it
    conversations.jsonl          what stays
    dropped.jsonl                what does not, with `dropped_for`
    quarantine.jsonl             rows that could not be read

A part holds the conversations of one batch in reading order: batches are cut alike at each start, by what was read and
never by who judges. So whatever parts there are need not be judged again.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from selfplay.cleaning.similar import Sketches
from selfplay.runs import Parts, Run

KINDS = ("conversations", "turns")
OUTPUT = ("conversations.jsonl", "dropped.jsonl")
TO_REPLACE = "to_replace.jsonl"
REPLACEMENTS = "replacements"


class Cleaning(Run):
    """An open folder, locked against a second process; takes the arguments of `Run`."""

    verb = "clean"
    kinds = KINDS
    files = (*OUTPUT, TO_REPLACE, "quarantine.jsonl")

    def _clear(self) -> None:
        super()._clear()
        place = self.folder / REPLACEMENTS
        for name in (*Run.kinds, "rounds"):
            shutil.rmtree(place / name, ignore_errors=True)
        for name in (*Run.files, "run.json", ".lock"):
            (place / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not there, or somebody put something else into it
            place.rmdir()

    def begun(self) -> bool:
        """Whether anything has been judged."""
        return bool(self.parts("turns"))

    def judged(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Some columns of the turns, part by part, in order."""
        for number in self.parts("turns"):
            yield self.read("turns", number, list(columns))

    def owners(self) -> NDArray[np.intp]:
        """The conversation of each turn, by its place in reading order; shape (turns,)."""
        counts = np.concatenate([self.turns_of(number) for number in self.parts("conversations")])
        return np.repeat(np.arange(len(counts)), counts)

    def turns_of(self, number: int) -> NDArray[np.intp]:
        """How many turns each conversation of a part has; shape (conversations,)."""
        return self.read("conversations", number, ["turns"])["turns"].to_numpy().astype(np.intp)

    def sketches(self, kind: str) -> Sketches:
        """Of all conversations or turns."""
        return Sketches.concat([self._sketches(kind, number) for number in self.parts(kind)])

    def _sketches(self, kind: str, number: int) -> Sketches:
        table = self.read(kind, number, ["words", "low", "bands"])
        return Sketches(*(table[name].to_numpy() for name in ("words", "low", "bands")))


def write_part(folder: Path, number: int, tables: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    """Writes a part, the turns last: with them it counts."""
    parts = Parts(folder)
    for kind, table in zip(KINDS, tables, strict=True):
        parts.write(kind, number, table)
