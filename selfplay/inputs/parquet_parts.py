"""A Parquet file from rows of JSON types that come bit by bit: in parts, so that memory does not grow with it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from selfplay.errors import UsageError
from selfplay.terminal import one_line

ROWS = 10_000
"""Rows of a part. All of them decide its types: a column may be absent from the first thousand."""

Rows = Iterable[dict[str, Any]]


@contextmanager
def parquet_rows(place: Path, name: str, rows: int = ROWS) -> Iterator[Callable[[Rows], None]]:
    """Gives what takes rows; the file is written to `place` when the block ends well.

    Columns and fields that only some rows have are null in the others; whole numbers among fractions become fractions.

    Args:
        name: What the user calls the file, for the message.
        rows: Rows of a part.

    Raises:
        UsageError: A column holds values that no one type can hold.
    """
    kept: list[dict[str, Any]] = []
    parts: list[Path] = []
    device = place.exists() and not place.is_file()
    with tempfile.TemporaryDirectory(prefix="selfplay-", dir=None if device else place.parent) as folder:

        def spill() -> None:
            part = Path(folder) / f"{len(parts)}.parquet"
            pl.DataFrame(kept, infer_schema_length=None, strict=False).write_parquet(part)
            parts.append(part)
            kept.clear()

        def add(more: Rows) -> None:
            for row in more:
                kept.append(row)
                if len(kept) >= rows:
                    with _one_line(name):
                        spill()

        yield add
        with _one_line(name):
            if kept or not parts:
                spill()
            whole = parts[0]
            if len(parts) > 1:
                whole = Path(folder) / "whole.parquet"
                pl.concat([pl.scan_parquet(part) for part in parts], how="diagonal_relaxed").sink_parquet(
                    whole, row_group_size=rows
                )
        if device:
            with open(whole, "rb") as read, open(place, "wb") as write:
                shutil.copyfileobj(read, write)
        else:
            whole.rename(place)


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    try:
        yield
    except pl.exceptions.PolarsError as error:
        why = one_line(error, 160)
        raise UsageError(f"{name}: a column holds values of several types; write .jsonl instead ({why})") from None
