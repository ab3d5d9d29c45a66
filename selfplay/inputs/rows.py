"""Rows of one file, one at a time: JSONL lines, Parquet row slices, Arrow shards.

Knows JSON, Parquet and Arrow; knows nothing of messages. A row that cannot be had comes as a problem, never as an
exception, so that the rows around it are still read.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from selfplay.errors import UsageError
from selfplay.inputs.array import array_rows
from selfplay.inputs.formats import BOM, DAMAGE, Source, open_source
from selfplay.inputs.quarantine import ROW_CHARS, BadRow
from selfplay.inputs.strict_json import MAX_DEPTH, MAX_LINE, Row, parse_line

SLICE_BYTES = 32 << 20
"""Parquet is read in slices of about this size in memory."""
SMALL_SLICE = 256
"""Rows of the first slice, and of those around damage."""


def read_rows(source: Source) -> tuple[str, Iterator[Row]]:
    """Opens one file.

    Returns:
        Its format (`jsonl`, `json array`, `parquet`, `arrow`) and its rows. Blank lines are no rows.

    Raises:
        UsageError: Not readable or no format we read.
    """
    kind, stream = open_source(source)
    if kind == "jsonl":
        return kind, _json_rows(stream)
    if kind == "json array":
        return kind, array_rows(stream)
    stream.close()
    if source.path is None:
        raise UsageError(f"stdin: {kind.capitalize()} cannot be read from a pipe; give the file's path")
    return kind, (_parquet_rows if kind == "parquet" else _arrow_rows)(source.name, source.path)


def _json_rows(stream: IO[bytes]) -> Iterator[Row]:
    number = 0
    with stream:
        while True:
            number += 1
            try:
                line = stream.readline(MAX_LINE)
                whole = len(line) < MAX_LINE or line.endswith(b"\n")
                while not whole:
                    piece = stream.readline(MAX_LINE)
                    whole = len(piece) < MAX_LINE or piece.endswith(b"\n")
            except DAMAGE as error:
                yield Row(number, problem=f"damaged file: {error}; what follows is lost")
                return
            if not line:
                return
            if number == 1:
                line = line.removeprefix(BOM)
            if not line.strip():
                continue
            raw = line[: 4 * ROW_CHARS].decode("utf-8", "replace").rstrip("\r\n")[:ROW_CHARS]
            if len(line) >= MAX_LINE:
                yield Row(number, problem=f"line too long: more than {MAX_LINE >> 20} MiB", raw=raw)
                continue
            try:
                yield Row(number, parse_line(line), raw=raw)
            except BadRow as error:
                yield Row(number, problem=str(error), raw=raw)


def _parquet_rows(name: str, path: Path) -> Iterator[Row]:
    """Slices grow to about 32 MiB: a slice can be retried and skipped where a batch stream ends for good."""
    import polars as pl

    damage = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
    try:
        # The path as it is: `*` and `[` in a file's name are no wildcards.
        table = pl.scan_parquet(path, glob=False)
        total = int(table.select(pl.len()).collect().item())
    except damage as error:
        raise UsageError(f"{name}: not readable as Parquet: {_first_line(error)}") from None
    start, size = 0, SMALL_SLICE
    while start < total:
        try:
            frame = table.slice(start, size).collect()
        except damage as error:
            if size > SMALL_SLICE:
                size = SMALL_SLICE  # look closer: only what lies in the damaged pages is lost
                continue
            count = min(size, total - start)
            problem = f"damaged file: rows {start + 1} to {start + count}: {_first_line(error)}"
            yield Row(start + 1, problem=problem, rows=count)
            start += count
        else:
            yield from _frame_rows(frame.iter_rows(named=True), start + 1)
            start += frame.height
            fitting = int(SLICE_BYTES * frame.height / max(1, frame.estimated_size()))
            size = max(1, min(4 * size, fitting, 50_000))


def _arrow_rows(name: str, path: Path) -> Iterator[Row]:
    """A shard of `save_to_disk` (an IPC stream, at most 500 MB unless told otherwise) is held in memory whole."""
    import polars as pl

    try:
        with path.open("rb") as file:
            streamed = file.read(4) == b"\xff\xff\xff\xff"
        frame = (pl.read_ipc_stream if streamed else pl.read_ipc)(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise UsageError(f"{name}: not readable as Arrow: {_first_line(error)}") from None
    yield from _frame_rows(frame.iter_rows(named=True), 1)


def _frame_rows(rows: Iterable[dict[str, Any]], first: int) -> Iterator[Row]:
    for number, row in enumerate(rows, first):
        try:
            yield Row(number, {key: json_value(value) for key, value in row.items()})
        except RecursionError:
            yield Row(number, problem=f"nested too deeply: more than {MAX_DEPTH} levels")


def json_value(value: Any) -> Any:
    """A table's value in JSON's types: NaN and infinity become null, times and decimals text, bytes base64."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode("ascii")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
