"""Rows of candidate turns in and out: what `filter` and `rank` take from files of any making.

A row is a conversation in any shape of `shapes` that ends with the assistant's, plus `turn`; or the columns `query`,
`answer` and `history` instead of the conversation. The original row travels along as JSON text, so that unknown
columns and the raw turn survive untouched; the columns beside it are what filters and rerank read.
"""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import polars as pl

from selfplay.atomic import replacing
from selfplay.core import Message
from selfplay.errors import UsageError
from selfplay.inputs.conversations import content_id
from selfplay.inputs.parquet_parts import parquet_rows
from selfplay.inputs.quarantine import BadRow, Quarantine
from selfplay.inputs.reading import good_rows
from selfplay.inputs.rows import json_value
from selfplay.inputs.shapes import an_object, detect_shape, given_id, kind_of, take_apart
from selfplay.inputs.strict_json import parse_text
from selfplay.tables import context_columns

_TEXT_COLUMNS = ("row", "id", "site_id", "query", "answer", "turn", "finish_reason", "messages")
SCHEMA = pl.Schema({**dict.fromkeys(_TEXT_COLUMNS, pl.String()), "history": pl.List(pl.String())})
"""`row` and `messages` are JSON text; `site_id` is the row's, else a hash of the messages: equal contexts share it."""

BATCH = 10_000


def read_turn_rows(path: str, quarantine: Quarantine) -> pl.DataFrame:
    """Reads every good row of `path` into one table (see `SCHEMA`); bad ones go to `quarantine` with the reason.

    Args:
        path: As `selfplay.inputs.conversations.read_conversations` takes it: file, dataset folder, or `-` for stdin.

    Raises:
        UsageError, TooManyBadRows: As `selfplay.inputs.reading.good_rows`.
    """
    return pl.concat([SCHEMA.to_frame(), *iter_turn_rows(path, quarantine)])


def iter_turn_rows(path: str, quarantine: Quarantine, batch: int = BATCH) -> Iterator[pl.DataFrame]:
    """Like `read_turn_rows`, in tables of at most `batch` rows, in file order and bounded memory."""
    kept: list[dict[str, Any]] = []
    for _, columns in good_rows(path, quarantine, _columns):
        kept.append(columns)
        if len(kept) >= batch:
            yield pl.DataFrame(kept, schema=SCHEMA)
            kept = []
    if kept:
        yield pl.DataFrame(kept, schema=SCHEMA)


def left_out(quarantine: Quarantine) -> Iterator[str]:
    """A line about the bad rows, if there were any."""
    if quarantine.bad:
        place = f", see {quarantine.path}" if quarantine.path else ""
        reasons = ", ".join(f"{count:,} × {reason}" for reason, count in quarantine.summary().items())
        yield f"{quarantine.bad:,} bad rows left out{place}: {reasons}"


def write_turn_rows(tables: pl.DataFrame | Iterable[pl.DataFrame], path: str, columns: Sequence[str]) -> int:
    """Writes the original rows with `columns` of the tables added (replacing what had the same name).

    Args:
        path: JSONL (plain, `.gz`, `.zst`), `.parquet`, or `-` for stdout. Files appear whole or not at all.

    Returns:
        Rows written.

    Raises:
        UsageError: The file cannot be written.
    """
    with turn_row_writer(path, columns) as write:
        return sum(map(write, [tables] if isinstance(tables, pl.DataFrame) else tables))


@contextmanager
def turn_row_writer(path: str, columns: Sequence[str]) -> Iterator[Callable[[pl.DataFrame], int]]:
    """Like `write_turn_rows`, for tables that come one by one: gives what writes one and returns its rows.

    The file appears when the block ends well; of a block that does not, nothing stays.

    Raises:
        UsageError: The file cannot be written.
    """
    if path.endswith(".parquet"):
        with _replacing(path) as place, parquet_rows(place, path) as add:

            def keep(table: pl.DataFrame) -> int:
                add(_merged(table, columns))
                return len(table)

            yield keep
        return

    with _open_for_writing(path) as out:

        def write(table: pl.DataFrame) -> int:
            for row in _merged(table, columns):
                out.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            return len(table)

        yield write


@contextmanager
def _open_for_writing(path: str) -> Iterator[IO[str]]:
    """Text into stdout (`-`) or a file, compressed by its suffix, that appears only when the block ends well."""
    if path == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    with _replacing(path) as place, open(place, "wb") as raw:
        binary: Any = raw
        if path.endswith(".gz"):
            binary = gzip.GzipFile(fileobj=raw, mode="wb", mtime=0)
        elif path.endswith(".zst"):
            import zstandard

            binary = zstandard.ZstdCompressor().stream_writer(raw, closefd=False)
        text = io.TextIOWrapper(binary, encoding="utf-8", newline="\n", write_through=False)
        yield text
        text.detach()  # Flushes, and keeps the wrapper from closing what it does not own.
        if binary is not raw:
            binary.close()


@contextmanager
def _replacing(path: str) -> Iterator[Path]:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path)) as place:
            yield place
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"{path}: cannot write it: {error.strerror or error}") from None


def take_from_rows(table: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Adds columns that the original rows carry themselves, such as signals measured before, or `genuine`.

    A name that no row has is left out; a value of another type than `schema` says is null.
    """
    rows = [json.loads(text) for text in table["row"]]
    found = {name: [row.get(name) for row in rows] for name in schema if any(name in row for row in rows)}
    return table.with_columns(pl.Series(name, values, schema[name], strict=False) for name, values in found.items())


def _merged(table: pl.DataFrame, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for values in table.select("row", *columns).iter_rows(named=True):
        row: dict[str, Any] = json.loads(values.pop("row"))
        yield {**row, **json_value(values)}


def _columns(value: Any, shape: str | None) -> tuple[str | None, dict[str, Any]]:
    row = an_object(value)
    turn, reason = row.get("turn"), row.get("finish_reason")
    if not isinstance(turn, str):
        raise BadRow("missing turn: the row has none" if turn is None else f"wrong type: turn is {kind_of(turn)}")
    found = _parsed(row)
    if isinstance(row.get("answer"), str) and detect_shape(found) is None:
        shape, context = None, _given_context(row)
    else:
        shape, _, messages, _ = take_apart(found, shape)
        context = _context(messages)
    site = row.get("site_id")
    if isinstance(site, str | int) and not isinstance(site, bool):
        context["site_id"] = str(site)
    return shape, {
        "row": json.dumps(row),
        "id": given_id(row),
        "turn": turn,
        "finish_reason": reason if isinstance(reason, str) else None,
        **context,
    }


def _parsed(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its messages as a list, where a table holds them as JSON text."""
    messages = row.get("messages")
    if not isinstance(messages, str):
        return row
    try:
        return {**row, "messages": parse_text(messages)}
    except json.JSONDecodeError:
        raise BadRow("wrong type: messages is text but not JSON") from None


def _context(messages: Sequence[Message]) -> dict[str, Any]:
    last = messages[-1]
    if last["role"] != "assistant":
        raise BadRow(f"wrong end: messages must end with the assistant's, not with {last['role']!r}")
    if not last["content"].strip():
        raise BadRow("empty: the last assistant message has no text")
    text = json.dumps(list(messages), ensure_ascii=False)
    return {"site_id": content_id(messages), "messages": text, **context_columns(messages)}


def _given_context(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table that already has the context columns, as a run's Parquet does."""
    query, history = row.get("query"), row.get("history")
    if not (query is None or isinstance(query, str)):
        raise BadRow(f"wrong type: query is {kind_of(query)}, not a string")
    if history is None:
        history = [] if query is None else [query]
    if not isinstance(history, list) or not all(isinstance(text, str) for text in history):
        raise BadRow("wrong type: history is not a list of strings")
    said = [*({"role": "user", "content": text} for text in history), {"role": "assistant", "content": row["answer"]}]
    return {
        "site_id": content_id(said), "query": query, "answer": row["answer"], "history": history, "messages": None
    }  # fmt: skip
