"""The good rows of an input, one at a time; the bad ones go to quarantine with where and why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from selfplay.core import Origin
from selfplay.errors import UsageError
from selfplay.inputs.formats import Source, find_sources, open_source
from selfplay.inputs.quarantine import BadRow, Quarantine
from selfplay.inputs.rows import read_rows

T = TypeVar("T")
Take = Callable[[Any, str | None], tuple[str | None, T]]
"""A row and the shape of its file's first good row (None before it) in, the row's shape and what it holds out."""


def good_rows(
    path: str, quarantine: Quarantine, take: Take[T], on_source: Callable[[Source, str], None] | None = None
) -> Iterator[tuple[Origin, T]]:
    """What `take` makes of each row of a file, a folder or stdin (`-`), in order.

    Args:
        take: Raises BadRow for a row that cannot be used.
        quarantine: Gets every bad row with its reason; its `rows` counts all rows.
        on_source: Told each file and its format as it is opened.

    Raises:
        UsageError: At once: nothing to read there, or a file in no format we read. While reading: no rows at all.
        TooManyBadRows: From `quarantine`, where a count is exceeded.
    """
    sources = find_sources(path)
    if quarantine.path is not None:  # which may lie in the input's folder
        own = quarantine.path.resolve()
        sources = [source for source in sources if source.path is None or source.path.resolve() != own]
    if len(sources) > 1:
        for source in sources:  # all before the first, so that a foreign file doesn't end a run half-way
            open_source(source)[1].close()
    return _read(path, sources, quarantine, take, on_source)


def _read(
    path: str,
    sources: list[Source],
    quarantine: Quarantine,
    take: Take[T],
    on_source: Callable[[Source, str], None] | None,
) -> Iterator[tuple[Origin, T]]:
    before = quarantine.rows
    for source in sources:
        kind, rows = read_rows(source)
        if on_source:
            on_source(source, kind)
        shape: str | None = None
        for row in rows:
            quarantine.rows += row.rows
            origin = Origin(source.name, row.line)
            try:
                if row.problem:
                    raise BadRow(row.problem)
                found, taken = take(row.value, shape)
            except BadRow as reason:
                raw = row.raw or (None if row.value is None else json.dumps(row.value))
                quarantine.add(origin, str(reason), raw, rows=row.rows)
                continue
            shape = shape or found
            yield origin, taken
    if quarantine.rows == before:
        raise UsageError(f"{path}: no rows in it")
