"""Data that callers hold in memory, as the files that verbs read; and turns of any making as sites and turns."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import polars as pl

from selfplay import filtering, ranking, results, tables
from selfplay.api.calling import Source
from selfplay.errors import UsageError
from selfplay.inputs.rows import json_value
from selfplay.inputs.shapes import SHAPES
from selfplay.inputs.turnrows import take_from_rows

Rows = Source | pl.DataFrame | Iterable[Mapping[str, Any]]
"""A path that verbs read, or rows: a list, a polars frame, a split of `datasets` …"""
KNOWN = pl.Schema(
    {
        **{
            name: kind
            for name, kind in (tables.TURNS | results.TURNS).items()
            if name not in ("site_id", "ordinal", "turn", "finish_reason") and not isinstance(kind, pl.List)
        },
        **filtering.CARRIED,
        **ranking.CARRIED,
    }
)
"""What is taken from rows of turns where they have it."""
CONTEXT = {"row", "id", "site_id", "turn", "finish_reason", "query", "answer", "history", *sum(SHAPES.values(), ())}


class Given:
    """Conversations at a path; rows from memory are in a temporary file as long as this lives."""

    def __init__(self, source: Rows) -> None:
        """Raises UsageError where there is nothing at the path, or the rows are none."""
        self.in_memory = not isinstance(source, str | PathLike)
        if isinstance(source, str | PathLike):
            self.path = fspath(source)
            if self.path != "-" and not Path(self.path).exists():
                raise UsageError(f"{self.path}: no such file or folder")
            return
        folder = tempfile.mkdtemp(prefix="selfplay-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = str(Path(folder, "rows.jsonl"))
        rows = source.iter_rows(named=True) if isinstance(source, pl.DataFrame) else source
        with open(self.path, "w", encoding="ascii") as file:
            for number, row in enumerate(rows):
                if not isinstance(row, Mapping):
                    raise UsageError(
                        f"row {number} is of type {type(row).__name__}, not a mapping; give rows as mappings "
                        '(pandas: frame.to_dict("records"); datasets: one split)'
                    )
                file.write(json.dumps(json_value(dict(row))) + "\n")


def sites_and_turns(read: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables of a run, made of rows of turns.

    Unknown columns that all turns of a site agree in belong to its conversation (`extra` of the site); others stay with
    the turn (a column `extra` of JSON text). Without a `conversation_id` each site is a conversation of its own.

    Args:
        read: As `selfplay.inputs.turnrows.read_turn_rows` gives it.

    Raises:
        UsageError: Rows of one site have different messages.
    """
    read = take_from_rows(read, KNOWN).with_columns(messages=pl.Series(_messages(read), dtype=pl.String))
    extras = [{k: v for k, v in json.loads(row).items() if k not in CONTEXT and k not in KNOWN} for row in read["row"]]
    sites: dict[str, dict[str, Any]] = {}
    shared: list[dict[str, Any]] = []  # by ordinal
    for (site_id, messages), extra in zip(read.select("site_id", "messages").iter_rows(), extras, strict=True):
        site = sites.setdefault(site_id, {"site_id": site_id, "ordinal": len(sites), "messages": messages})
        if site["messages"] != messages:
            raise UsageError(f"site_id {site_id!r}: its rows have different messages; a site is one context")
        if site["ordinal"] == len(shared):
            shared.append(extra)
        else:
            same = shared[site["ordinal"]]
            shared[site["ordinal"]] = {k: v for k, v in same.items() if k in extra and extra[k] == v}
    own = [
        {k: v for k, v in extra.items() if k not in shared[sites[site_id]["ordinal"]]}
        for site_id, extra in zip(read["site_id"], extras, strict=True)
    ]
    turns = read.drop("row", "messages", "query", "answer", "history").with_columns(
        ordinal=pl.Series([sites[name]["ordinal"] for name in read["site_id"]], dtype=pl.Int64)
    )
    if any(own):
        texts = [json.dumps(extra, ensure_ascii=False) for extra in own]
        turns = turns.with_columns(extra=pl.Series(texts, dtype=pl.String))
    turns = _keyed(pl.concat([tables.TURNS.to_frame(), turns], how="diagonal"))
    conversation = turns.group_by("site_id").agg(pl.col("conversation_id").first())
    names = dict(conversation.iter_rows())
    frame = [
        site | {"conversation_id": names[name], "extra": json.dumps(shared[site["ordinal"]], ensure_ascii=False)}
        for name, site in sites.items()
    ]
    return pl.DataFrame(frame, schema=tables.SITES), turns.sort("ordinal", maintain_order=True)


def _messages(read: pl.DataFrame) -> list[str]:
    """JSON text; made of `history` and `answer` where rows have those only."""
    return [
        messages
        or json.dumps([*({"role": "user", "content": text} for text in history or ()),
                       {"role": "assistant", "content": answer}], ensure_ascii=False)
        for messages, history, answer in read.select("messages", "history", "answer").iter_rows()
    ]  # fmt: skip


def _keyed(turns: pl.DataFrame) -> pl.DataFrame:
    """With a conversation for every turn, and samples numbered anew where they do not tell turns of a site apart."""
    turns = turns.with_columns(pl.coalesce("conversation_id", "site_id"), pl.col("primed").fill_null(False))
    keys = ("site_id", "temperature", "sample")
    if turns["sample"].null_count() or turns.select(keys).is_duplicated().any():
        turns = turns.with_columns(sample=pl.int_range(pl.len(), dtype=pl.Int64).over("site_id"))
    return turns
