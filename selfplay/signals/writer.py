"""Who scores where `--scorer-model self` asks for the model that wrote the turns: what the rows say wrote them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import polars as pl

from selfplay.errors import UsageError
from selfplay.models import EMBEDDED
from selfplay.terminal import printable

SELF = "self"
"""As the name of a scorer: the model that wrote the turns."""


def scorer_for(name: str | None, tables: Iterable[pl.DataFrame]) -> tuple[str | None, Iterator[pl.DataFrame]]:
    """The scorer, and the tables to go on with, of which only the first has been read.

    Args:
        name: A model, None for the default one, or `SELF`.
        tables: Rows with `model` where they tell it.

    Raises:
        UsageError: `SELF`, and the rows do not name one model; also while the tables are read.
    """
    found = iter(tables)
    if name != SELF:
        return name, found
    first = next(found, None)
    if first is None:
        return None, found
    writer = _writer(first, None)
    return embedded(writer), chain([first], _checked(found, writer))


def embedded(model: str) -> str:
    """The name here of a model that a run wrote down by its Hugging Face id (`models.published_as`)."""
    return next((each.name for each in EMBEDDED.values() if each.source == model), model)


def _checked(tables: Iterator[pl.DataFrame], writer: str) -> Iterator[pl.DataFrame]:
    for table in tables:
        _writer(table, writer)
        yield table


def _writer(table: pl.DataFrame, known: str | None) -> str:
    models = table["model"].unique().to_list() if "model" in table.columns else [None]
    if None in models:
        raise UsageError("--scorer-model self: rows have no `model` that says what wrote them; name the scorer")
    names = sorted({str(model) for model in models} | ({known} if known else set()))
    if len(names) > 1:
        raise UsageError(
            f"--scorer-model self: the turns are of {len(names)} models "
            f"({', '.join(printable(each, 60) for each in names[:3])}); split the file, or name one scorer for all"
        )
    return names[0]
