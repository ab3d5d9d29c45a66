"""Rows of one file, one at a time: JSONL lines, Parquet row slices, Arrow shards.

Knows JSON, Parquet and Arrow; knows nothing of messages. A row that cannot be had comes as a problem, never as an
exception, so that the rows around it are still read.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from selfplay.errors import UsageError
from selfplay.formats import BOM, DAMAGE, Source, open_source
from selfplay.quarantine import ROW_CHARS, BadRow

MAX_LINE = 64 << 20
MAX_DEPTH = 100
SLICE_BYTES = 32 << 20
"""Parquet is read in slices of about this size in memory."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row as read: a JSON value, or the reason why there is none.

    Attributes:
        line: 1-based line or row number in its file.
        problem: `kind: detail`, or None.
        raw: The row's text, as far as it is worth keeping.
        rows: How many rows an unreadable part stands for.
    """

    line: int
    value: Any = None
    problem: str | None = None
    raw: str = ""
    rows: int = 1


def read_rows(source: Source) -> tuple[str, Iterator[Row]]:
    """Opens one file.

    Returns:
        Its format (`jsonl`, `parquet`, `arrow`) and its rows. Blank lines are no rows.

    Raises:
        UsageError: Not readable or no format we read.
    """
    kind, stream = open_source(source)
    if kind == "jsonl":
        return kind, _json_rows(stream)
    stream.close()
    if source.path is None:
        raise UsageError(f"stdin: {kind.capitalize()} cannot be read from a pipe; give the file's path")
    return kind, (_parquet_rows if kind == "parquet" else _arrow_rows)(source.name, source.path)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise BadRow(f"duplicate key: {twice[:80]!r} stands twice in one object")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadRow(f"not a finite number: {text[:40]}")
    return value


def _constant(text: str) -> float:
    raise BadRow(f"not a finite number: {text}")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_constant)


def parse_line(line: bytes) -> Any:
    """Parses one JSON line strictly: UTF-8, no NaN, no key twice, no lone surrogate, at most 100 levels deep.

    Raises:
        BadRow: With the reason.
    """
    try:
        value = _DECODER.decode(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadRow(f"not UTF-8: byte {line[error.start]:#04x} at byte {error.start + 1} of the line") from None
    except json.JSONDecodeError as error:
        raise BadRow(f"broken JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise BadRow(f"nested too deeply: more than {MAX_DEPTH} levels") from None
    except ValueError:  # an integer of more digits than Python converts
        raise BadRow("not a finite number: an integer of thousands of digits") from None
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise BadRow(f"nested too deeply: more than {MAX_DEPTH} levels")
    if b"\\ud" in line or b"\\uD" in line:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise BadRow("lone surrogate: half of a UTF-16 pair, which is no text") from None
    return value


def _depth(value: Any) -> int:
    """Levels of nesting; stops counting just above MAX_DEPTH."""
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        level = (
            [
                child
                for item in level
                if isinstance(item, (dict, list))
                for child in (item.values() if isinstance(item, dict) else item)
            ]
            if any(isinstance(item, (dict, list)) for item in level)
            else []
        )
        depth += 1
    return depth - 1


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
    start, size = 0, 256
    while start < total:
        try:
            frame = table.slice(start, size).collect()
        except damage as error:
            count = min(size, total - start)
            problem = f"damaged file: rows {start + 1} to {start + count}: {_first_line(error)}"
            yield Row(start + 1, problem=problem, rows=count)
        else:
            yield from _frame_rows(frame.iter_rows(named=True), start + 1)
            size = max(1, min(50_000, 4 * size, int(SLICE_BYTES * frame.height / max(1, frame.estimated_size()))))
            start += frame.height
            continue
        start += count


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
