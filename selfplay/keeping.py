"""Which labelled turns `selfplay filter` keeps, and why the others go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from filters.labels import Label
from selfplay.errors import UsageError
from selfplay.terminal import printable


@dataclass(frozen=True, slots=True)
class Keeping:
    """What a turn must be to stay.

    Attributes:
        labels: It has one of these.
        above: Its p_genuine is at least this; one that is not known is not.
    """

    labels: frozenset[Label] = frozenset(Label)
    above: float | None = None

    @property
    def everything(self) -> bool:
        """Whether all turns stay."""
        return self.above is None and len(self.labels) == len(Label)

    def rejected_for(self, table: pl.DataFrame) -> pl.DataFrame:
        """Adds `rejected_for`: null for a turn that stays, else `label: generic`, `p_genuine below 0.8` or both.

        Args:
            table: Columns `label, p_genuine`.
        """
        stays = pl.col("label").is_in([label.value for label in self.labels])
        reasons = [pl.when(~stays).then(pl.concat_str(pl.lit("label: "), "label"))]
        if self.above is not None:
            p = pl.col("p_genuine").fill_nan(None)
            reasons += [
                pl.when(p < self.above).then(pl.lit(f"p_genuine below {self.above:g}")),
                pl.when(p.is_null()).then(pl.lit("p_genuine unknown")),
            ]
        joined = pl.concat_str(*reasons, separator="; ", ignore_nulls=True)
        return table.with_columns(pl.when(joined != "").then(joined).alias("rejected_for"))


def keeping(
    drop: Iterable[str] = (), keep: Iterable[str] = (), above: float | None = None, option: str = "--drop"
) -> Keeping:
    """What `--drop`, `--keep` and `--keep-above` ask for; labels may be joined by commas.

    Args:
        option: What the verb calls the one that `drop` is of.

    Raises:
        UsageError: A label there is not, `drop` and `keep` together, nothing left to keep.
    """
    dropped, kept = _labels(option, drop), _labels("--keep", keep)
    if dropped and kept:
        raise UsageError("--drop and --keep: give one of them, each says the other by leaving labels out")
    if len(dropped) == len(Label):
        raise UsageError(f"{option}: that is every label; nothing would stay")
    return Keeping(kept or frozenset(Label) - dropped, above)


def _labels(option: str, given: Iterable[str]) -> frozenset[Label]:
    found = set()
    for name in (part.strip() for text in given for part in text.split(",")):
        try:
            found.add(Label(name))
        except ValueError:
            raise UsageError(f"{option}: no label '{printable(name, 60)}'; labels are {', '.join(Label)}") from None
    return frozenset(found)
