"""Rows `{"id", "messages", "turn"}` in and out: what `filter` and `rank` take from files of any making.

The original row travels along as JSON text, so that unknown columns and the raw turn survive untouched; the columns
beside it are what filters and rerank read.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import polars as pl
import zstandard

from selfplay.core import Origin
from selfplay.errors import UsageError

if TYPE_CHECKING:
    from selfplay.quarantine import Quarantine

_TEXT_COLUMNS = ("row", "id", "site_id", "query", "answer", "turn", "finish_reason", "messages")
SCHEMA = pl.Schema({**dict.fromkeys(_TEXT_COLUMNS, pl.String()), "history": pl.List(pl.String())})
"""`row` and `messages` are JSON text; `site_id` is a hash of the messages, so equal contexts share it."""

_SURROGATE = re.compile("[\ud800-\udfff]")


class _BadRow(ValueError):
    """One row that cannot be used; the text is the reason."""


def read_turn_rows(path: str, quarantine: Quarantine) -> pl.DataFrame:
    """Reads every good row of `path` into one table (see `SCHEMA`); bad ones go to `quarantine` with the reason.

    Args:
        path: JSONL (plain, `.gz`, `.zst`), Parquet, or `-` for JSONL on stdin.

    Raises:
        UsageError: The file is missing or not readable as what its name says.
    """
    return pl.concat([SCHEMA.to_frame(), *iter_turn_rows(path, quarantine)])


def iter_turn_rows(path: str, quarantine: Quarantine, batch: int = 10_000) -> Iterator[pl.DataFrame]:
    """Like `read_turn_rows`, in tables of at most `batch` rows, in file order and bounded memory."""
    kept: list[dict[str, Any]] = []
    for origin, raw in _raw_rows(path):
        quarantine.rows += 1
        try:
            kept.append(_columns(raw if isinstance(raw, dict) else _parse(raw)))
        except _BadRow as bad:
            quarantine.add(origin, str(bad), raw if isinstance(raw, str) else json.dumps(raw, default=str))
        if len(kept) >= batch:
            yield pl.DataFrame(kept, schema=SCHEMA)
            kept = []
    if kept:
        yield pl.DataFrame(kept, schema=SCHEMA)


def write_turn_rows(tables: pl.DataFrame | Iterable[pl.DataFrame], path: str, columns: Sequence[str]) -> int:
    """Writes the original rows with `columns` of the tables added (replacing what had the same name).

    Args:
        path: JSONL (plain, `.gz`, `.zst`), `.parquet`, or `-` for stdout. Files appear whole or not at all.

    Returns:
        Rows written.

    Raises:
        UsageError: The file cannot be written.
    """
    count = 0
    tables = [tables] if isinstance(tables, pl.DataFrame) else tables
    if path.endswith(".parquet"):
        rows = [_clean(row) for table in tables for row in _merged(table, columns)]
        with _atomic(path) as (name, _):
            # The whole input decides the types: a column may be absent from the first thousand rows.
            pl.DataFrame(rows, infer_schema_length=None, strict=False).write_parquet(name)
        return len(rows)
    with open_for_writing(path) as out:
        for table in tables:
            for row in _merged(table, columns):
                out.write(_json_line(row) + "\n")
                count += 1
    return count


@contextmanager
def open_for_writing(path: str) -> Iterator[IO[str]]:
    """Text into stdout (`-`) or a file, compressed by its suffix, that appears only when the block ends well."""
    if path == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    with _atomic(path) as (_, raw):
        if path.endswith(".gz"):
            binary: Any = gzip.GzipFile(fileobj=raw, mode="wb", mtime=0)
        elif path.endswith(".zst"):
            binary = zstandard.ZstdCompressor().stream_writer(raw, closefd=False)
        else:
            binary = raw
        text = io.TextIOWrapper(binary, encoding="utf-8", newline="\n", write_through=False)
        yield text
        text.detach()  # Flushes, and keeps the wrapper from closing what it does not own.
        if binary is not raw:
            binary.close()


@contextmanager
def _atomic(path: str) -> Iterator[tuple[str, IO[bytes]]]:
    part = Path(f"{path}.{os.getpid()}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as raw:
            yield str(part), raw
        os.replace(part, path)
    except OSError as error:
        raise UsageError(f"{path}: cannot write it: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


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
        yield {**row, **values}


def _json_line(row: dict[str, Any]) -> str:
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except ValueError:
        # JSON has no NaN or infinity; Parquet has, and so has Python's reading of 1e999.
        row = _finite(row)
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    return json.dumps(row) if _SURROGATE.search(text) else text


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _raw_rows(path: str) -> Iterator[tuple[Origin, Any]]:
    """Pairs of origin and raw row: JSONL gives text, Parquet gives a dict."""
    if path == "-":
        yield from _lines(sys.stdin.buffer, "-")
        return
    try:
        if path.endswith(".parquet"):
            yield from _parquet_rows(path)
        elif path.endswith(".gz"):
            with gzip.open(path, "rb") as stream:
                yield from _lines(stream, path)
        elif path.endswith(".zst"):
            with open(path, "rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as reader:
                yield from _lines(io.BufferedReader(reader), path)
        else:
            with open(path, "rb") as file:
                yield from _lines(file, path)
    except (OSError, EOFError) as error:
        raise UsageError(f"{path}: cannot read it: {getattr(error, 'strerror', None) or error}") from None
    except (pl.exceptions.PolarsError, zlib.error, zstandard.ZstdError) as error:
        raise UsageError(f"{path}: not readable as {Path(path).suffix[1:]}: {str(error).splitlines()[0]}") from None


def _lines(stream: Any, name: str) -> Iterator[tuple[Origin, str]]:
    for number, line in enumerate(stream, 1):
        text = line.decode("utf-8", errors="surrogateescape").lstrip("\ufeff" if number == 1 else "").strip()
        if text:
            yield Origin(name, number), text


def _parquet_rows(path: str) -> Iterator[tuple[Origin, dict[str, Any]]]:
    number = 0
    frame = pl.scan_parquet(path)
    total = frame.select(pl.len()).collect().item()
    for start in range(0, total, 10_000):
        for row in frame.slice(start, 10_000).collect().iter_rows(named=True):
            number += 1
            yield Origin(path, number), row


def _parse(text: str) -> dict[str, Any]:
    if _SURROGATE.search(text):
        raise _BadRow("not UTF-8")
    try:
        row = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise _BadRow("nested too deep") from None
    except ValueError as error:
        raise _BadRow(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise _BadRow(f"a row must be an object, not {type(row).__name__}")
    return row


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    turn = row.get("turn")
    if not isinstance(turn, str):
        raise _BadRow("no `turn`" if turn is None else f"`turn` must be text, not {type(turn).__name__}")
    if row.get("messages") is None and isinstance(row.get("answer"), str):
        found = _given_context(row)
    else:
        found = _context(_messages(row.get("messages")))
    identifier, reason = row.get("id"), row.get("finish_reason")
    values = {
        "id": None if identifier is None else str(identifier),
        "turn": turn,
        "finish_reason": reason if isinstance(reason, str) else None,
        **found,
    }
    # Tables hold UTF-8 only; the untouched original stays in `row`, escaped.
    clean = {name: _clean(value) for name, value in values.items()}
    return {"row": json.dumps(row, default=str), **clean}


def _messages(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise _BadRow("`messages` is text but not JSON") from None
    if not isinstance(value, list) or not value:
        raise _BadRow("no `messages`" if value is None else "`messages` must be a list that is not empty")
    found = []
    for index, message in enumerate(value):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise _BadRow(f"messages[{index}] has no role")
        found.append({**message, "content": _text(message.get("content"), index)})
    if found[-1]["role"] != "assistant":
        raise _BadRow(f"messages must end with the assistant's, not with {found[-1]['role']!r}")
    if not found[-1]["content"].strip():
        raise _BadRow("the last assistant message is empty")
    return found


def _text(content: Any, index: int) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        texts = [part.get("text") for part in content if part.get("type", "text") == "text"]
        if all(isinstance(text, str) for text in texts):
            return "".join(str(text) for text in texts)
    raise _BadRow(f"messages[{index}].content must be text or a list of text parts")


def _context(messages: list[dict[str, Any]]) -> dict[str, Any]:
    text = json.dumps(messages, sort_keys=True, default=str)
    users = [message["content"] for message in messages if message["role"] == "user"]
    return {
        "site_id": hashlib.sha256(text.encode()).hexdigest()[:16],
        "query": users[-1] if users else None,
        "answer": messages[-1]["content"],
        "history": users,
        "messages": text,
    }


def _given_context(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table that already has the context columns, as a run's Parquet does."""
    query, history = row.get("query"), row.get("history")
    if not (query is None or isinstance(query, str)):
        raise _BadRow("`query` must be text")
    if history is None:
        history = [] if query is None else [query]
    if not isinstance(history, list) or not all(isinstance(text, str) for text in history):
        raise _BadRow("`history` must be a list of texts")
    site = row.get("site_id")
    if not isinstance(site, str):
        key = json.dumps([history, row["answer"]])
        site = hashlib.sha256(key.encode()).hexdigest()[:16]
    return {"site_id": site, "query": query, "answer": row["answer"], "history": history, "messages": None}


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list) else value
