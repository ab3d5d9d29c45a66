"""Writes what people take away: chosen conversations, the rejected candidates with reasons.

Reads the finished parts of a run one at a time, so memory does not grow with the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from selfplay.atomic import replacing
from selfplay.runs import Run, writing
from selfplay.tables import SAMPLED_STATE

FLIPPED = {"user": "assistant", "assistant": "user"}
REJECTED = (
    "site_id", "conversation_id", "model", "temperature", "sample", "turn", "rejected_for", "label", "rule",
    "evidence", "p_genuine", "groundedness", "rank", "finish_reason",
)  # fmt: skip


def flip(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The dialogue as a user simulator sees it: the user's turns are the assistant's, so trainers learn them.

    System and tool messages and bare tool calls are left out, since a user never sees them.
    """
    return [
        {"role": FLIPPED[message["role"]], "content": message["content"]}
        for message in messages
        if message["role"] in FLIPPED and message["content"]
    ]


def chosen_row(site: Mapping[str, Any], turn: Mapping[str, Any], several: bool = False) -> dict[str, Any]:
    """One line of `chosen.jsonl`.

    Args:
        several: A site may have more than one chosen turn, so that the id must tell which.
    """
    messages = json.loads(site["messages"])
    row = {
        "id": f"{site['site_id']}/{draw_name(turn)}" if several else site["site_id"],
        "conversation_id": site["conversation_id"],
        "messages": [*messages, {"role": "user", "content": turn["turn"]}],
        "prompt": flip(messages),
        "completion": [{"role": "assistant", "content": turn["turn"]}],
        **{key: turn[key] for key in ("model", "primed", "temperature", "sample", "seed")},
        **{key: turn[key] for key in ("label", "p_genuine", "groundedness")},
        "reference": site["next_user"],
    }
    return with_extra(row, json.loads(site["extra"]))


def draw_name(turn: Mapping[str, Any]) -> str:
    """Tells a turn from others of its site: temperature and sample, or the latter where the former is not known."""
    drawn = turn["temperature"]
    return str(turn["sample"]) if drawn is None else f"{drawn:g}/{turn['sample']}"


def with_extra(row: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """`row` with the columns we do not know behind ours; one that has a name of ours becomes `input_<name>`."""
    for key, value in extra.items():
        name = key
        while name in row:
            name = f"input_{name}"
        row[name] = value
    return row


def in_order(run: Run) -> list[int]:
    """Finished parts by their first site; an engine that answers out of order leaves them otherwise."""
    first = run.first("turns")
    return sorted(first, key=lambda number: first[number])


def chosen(run: Run) -> Iterator[dict[str, Any]]:
    """All chosen rows, in reading order within a part, the best of a site first."""
    several = (run.record["select"] or {}).get("select", 1) > 1
    for number in in_order(run):
        turns = run.read("turns", number).filter("selected").sort("ordinal", "rank")
        sites = {row["site_id"]: row for row in run.read("sites", number).iter_rows(named=True)}
        for turn in turns.iter_rows(named=True):
            yield chosen_row(sites[turn["site_id"]], turn, several)


def turn_rows(run: Run) -> Iterator[dict[str, Any]]:
    """Rows `{"id", "messages", "turn", …}` of all sampled candidates, for `filter` and `rank`."""
    for number in run.parts("sampled"):
        sites = {row["site_id"]: row for row in run.read("sites", number).iter_rows(named=True)}
        turns = run.read("sampled", number).drop(SAMPLED_STATE, strict=False)
        for turn in turns.drop("token_ids", "token_logprobs", "ordinal").iter_rows(named=True):
            site = sites[turn["site_id"]]
            key = f"{turn['site_id']}/{turn['temperature']:g}/{turn['sample']}"
            yield {"id": key, "messages": json.loads(site["messages"])} | turn


def write_turns(run: Run) -> int:
    """Writes `turns.jsonl`; returns the number of rows."""
    return write_lines(run.folder / "turns.jsonl", turn_rows(run))


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes JSONL atomically; returns the number of rows."""
    count = 0
    with replacing(path) as place, open(place, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def write_dataset(run: Run) -> int:
    """Writes `chosen.jsonl` and `rejected.parquet`, each atomically.

    Returns:
        The number of chosen turns.
    """
    count = write_lines(run.folder / "chosen.jsonl", chosen(run))
    parts = [run.path("turns", number) for number in in_order(run)]
    if parts:
        rejected = pl.scan_parquet(parts).filter(~pl.col("selected")).select(REJECTED)
        with replacing(run.folder / "rejected.parquet") as path, writing(path):
            rejected.sink_parquet(path, maintain_order=True)
    return count
