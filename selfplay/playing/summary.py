"""The closing table of a play: what each round did, and what it cost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from selfplay.playing.dialogues import ENDINGS
from selfplay.playing.folder import PlayFolder
from selfplay.runs import Parts, Run
from selfplay.showing.candidates import wide_console
from selfplay.terminal import printable

COLUMNS = (
    "round", "open", "answered", "cut", "cached", "candidates", "passed", "selected", "genuine, all", "selected",
    "cached", "ended here",
)  # fmt: skip
"""`cached` stands behind the answers and behind the user turns; `genuine` is estimated."""


def of_answers(run: Run) -> dict[str, Any]:
    """Counts over the answers of a stage; JSON types only."""
    if not run.parts("sampled"):
        return {"sites": 0, "truncated": 0, "completion_tokens": 0}
    table = sampled(run)
    counts = table.select(
        pl.len().alias("sites"),
        (pl.col("finish_reason") == "length").sum().alias("truncated"),
        pl.col("completion_tokens").sum(),
    )
    return counts.collect().row(0, named=True)


def sampled(parts: Parts) -> pl.LazyFrame:
    """All candidates of a stage; a kill may have left one part with a column more."""
    paths = [parts.path("sampled", number) for number in parts.parts("sampled")]
    return pl.scan_parquet(paths, missing_columns="insert", extra_columns="ignore")


def warm_share(record: Mapping[str, Any], parts: Parts) -> float | None:
    """Share of the prompts' tokens that was in the prefix cache when each site was first sampled at.

    The other draws of a site find its whole prompt there, which tells nothing of earlier rounds. None without tokens.
    """
    if told := record.get("prompts"):
        return told["cached"] / told["tokens"] if told["tokens"] else None
    numbers = parts.parts("sampled")
    if not numbers:
        return None
    prompts = pl.scan_parquet([parts.path("sites", number) for number in numbers]).select("site_id", "prompt_tokens")
    first = sampled(parts).group_by("site_id").agg(pl.col("cached_tokens").min())
    cached, tokens = (
        (first.join(prompts, on="site_id").select(pl.col("cached_tokens").sum(), pl.col("prompt_tokens").sum()))
        .collect()
        .row(0)
    )
    return cached / tokens if tokens else None


def measure(folder: PlayFolder, rounds: int, ends: Mapping[tuple[int, str, bool], int]) -> dict[str, Any]:
    """What `run.json` tells of a finished play; JSON types only.

    Args:
        ends: Dialogues by the stage of their end, their ending, and whether they have any answer.
    """
    endings: Counter[str] = Counter()
    for (_, ending, _), count in ends.items():
        endings[ending] += count
    total = sum(ends.values())
    told, left, tokens, seconds = [], total, 0, 0.0
    for number in range(rounds + 1):
        row: dict[str, Any] = {"round": number + 1, "open": left}
        here: Counter[str] = Counter()
        for stage in (2 * number, 2 * number + 1)[: 1 if number == rounds else 2]:
            for (ended, ending, _), count in ends.items():
                if ended == stage:
                    here[ending] += count
            record = json.loads((folder.stage(stage) / "run.json").read_bytes())
            row |= _turns(record) if stage % 2 else _answers(record)
            share = "cached_share_turns" if stage % 2 else "cached_share_answers"
            row[share] = warm_share(record, Parts(folder.stage(stage)))
            tokens += record["summary"].get("completion_tokens") or 0
            seconds += sum(s["sampling_seconds"] + s["judging_seconds"] for s in record["sessions"])
        left -= sum(here.values())
        told.append(row | {"endings": dict(here)})
    return {
        "prompts": total,
        "conversations": sum(count for (_, _, answered), count in ends.items() if answered),
        "endings": {ending: endings[ending] for ending in ENDINGS},
        "rounds": told,
        "completion_tokens": tokens,
        "seconds": seconds,
    }


def _answers(record: Mapping[str, Any]) -> dict[str, Any]:
    found = record["summary"]
    return {"answered": found["sites"], "cut_answers": found["truncated"]}


def _turns(record: Mapping[str, Any]) -> dict[str, Any]:
    found = record["summary"]
    return {
        "candidates": found["candidates"],
        "passed_rules": found.get("passed_rules", 0),
        "selected": found.get("selected", 0),
        "estimated_genuine": found.get("estimated_genuine", {}),
    }


def show(folder: PlayFolder, console: Console | None = None) -> None:
    """The closing table, what it cost, and where to look."""
    console = console or wide_console()
    found = folder.record["summary"]
    table = Table(box=None, pad_edge=False, header_style="")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("round", "ended here") else "right")
    for row in found["rounds"]:
        table.add_row(*(Text(printable(cell)) for cell in cells(row)))
    console.print(table)
    console.print()
    for line in lines(found):
        console.print(Text(printable(line)), soft_wrap=True)
    for name, what in (
        ("conversations.jsonl", "the dialogues: messages, ending, figures of each sampled user turn"),
        ("unanswered.jsonl", "prompts that came to no dialogue, with the reason"),
        ("failed.jsonl", "sites that the engine gave up on; the same command tries them again"),
        ("quarantine.jsonl", "rows that could not be used, with file, line and reason"),
        ("run.json", "configuration, versions, counts; every stage has a folder beside it"),
    ):
        path = folder.folder / name
        if path.exists() and path.stat().st_size:
            console.print(Text(f"{printable(str(path))}  {what}"), soft_wrap=True)


def cells(row: Mapping[str, Any]) -> list[str]:
    """One line of the table, as `COLUMNS`."""
    endings = ", ".join(f"{ending} {count}" for ending, count in sorted(row["endings"].items()))
    answers = [row["round"], row["open"], row["answered"], row["cut_answers"], percent(row["cached_share_answers"])]
    if "candidates" not in row:
        return [*map(str, answers), *[""] * 6, endings]
    estimated = row["estimated_genuine"]
    return [
        *map(str, answers),
        str(row["candidates"]),
        str(row["passed_rules"]),
        str(row["selected"]),
        *(percent(estimated.get(name, {}).get("mean")) for name in ("before", "after")),
        percent(row["cached_share_turns"]),
        endings,
    ]


def lines(found: Mapping[str, Any]) -> list[str]:
    """What the table has no room for."""
    endings = ", ".join(f"{ending} {count}" for ending, count in found["endings"].items() if count)
    whys = {e["why"] for row in found["rounds"] for e in row.get("estimated_genuine", {}).values() if e["extrapolated"]}
    return [
        f"{found['conversations']} dialogues from {found['prompts']} prompts; endings: {endings}",
        *(f"estimates extrapolate: {why}" for why in sorted(whys)),
        "cached: share of the prompts' tokens that the prefix cache held before, of answers and of user turns",
        "genuine: estimated share of genuine follow-ups among all candidates, and among those selected",
        f"{found['completion_tokens']:,} tokens sampled; {found['seconds']:.0f} s sampling and judging",
    ]


def percent(value: float | None) -> str:
    """As a percentage; `-` where it is not known."""
    return "-" if value is None else f"{value:.1%}"
