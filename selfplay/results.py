"""Reads what our verbs leave behind, whichever it was: a run, cleaned data, played dialogues, as sites and turns.

    run     sites/, turns/ (sampled/ where nothing was judged)
    clean   conversations.jsonl and dropped.jsonl, whose `user_turns` tell of each user message after an answer
    play    round-01, round-02 …, a run each; conversations.jsonl

Writes nothing and takes no lock: only what is finished is read. Holds one part in memory at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from selfplay import tables
from selfplay.errors import SelfplayError, UsageError
from selfplay.inputs.quarantine import BadRow
from selfplay.inputs.strict_json import parse_line
from selfplay.runs import FORMAT, Parts

VERBS = ("run", "clean", "play")
SITES = pl.Schema(
    {
        name: tables.SITES[name]
        for name in ("site_id", "ordinal", "conversation_id", "messages", "next_user", "extra")
    }
)  # fmt: skip
TURNS = pl.Schema(
    {
        **{
            name: tables.TURNS[name]
            for name in (
                "site_id", "ordinal", "conversation_id", "model", "primed", "temperature", "sample", "seed", "turn",
                "finish_reason", "completion_tokens",
            )
        },
        "label": pl.String(),
        "genuine": pl.Boolean(),
        "p_genuine": pl.Float64(),
        "rule": pl.String(),
        "evidence": pl.String(),
        "rule_set": pl.String(),
        "bad": pl.Boolean(),  # clean: one of the labels asked for; else: a rule fired
        "groundedness": pl.Float64(),
        "rank": pl.Int64(),
        "selected": pl.Boolean(),
        "rejected_for": pl.String(),
    }
)  # fmt: skip
PART_CHARS = 1 << 24
"""Of contexts in a part made from conversations, about."""
OWN = ("id", "messages", "original_messages", "user_turns", "dropped_for")
"""Columns of a cleaned conversation that are told in other ways than by `extra`."""

Tables = tuple[pl.DataFrame, pl.DataFrame]


@dataclass(frozen=True, slots=True)
class Results:
    """A finished folder.

    Attributes:
        verb: `run`, `clean` or `play`.
        record: Its `run.json`.
    """

    folder: Path
    verb: str
    record: Mapping[str, Any]

    def parts(self) -> Iterator[Tables]:
        """Sites (`SITES`) and all their turns (`TURNS`), part by part in reading order, a play's round by round.

        The turns of a run nobody judged have nulls for what is not known. Those of cleaned data are the data's own:
        `selected` says that the conversation still has it.

        Raises:
            UsageError: A file is damaged or missing.
        """
        if self.verb == "clean":
            yield from _cleaned(self)
            return
        first = 0
        for run in self.runs():
            offset, first = first, first  # ordinals of a later round go on where those of the last one ended
            for sites, turns in _sampled(run):
                shift = pl.col("ordinal") + offset
                first = max(first, offset + 1 + int(sites["ordinal"].max() or 0))  # type: ignore[arg-type]
                yield sites.with_columns(shift), turns.with_columns(shift)

    def runs(self) -> list[Results]:
        """The runs in it: itself, the rounds of a play, the replacements of a clean that has some."""
        if self.verb == "run":
            return [self]
        if self.verb == "play":
            return [open_results(path.parent) for path in sorted(self.folder.glob("round-*/run.json"), key=_number)]
        place = self.folder / "replacements"
        return [open_results(place)] if place.exists() else []

    def conversations(self, dropped: bool = False) -> Iterator[dict[str, Any]]:
        """Rows of `conversations.jsonl`, of a clean or play; then those of `dropped.jsonl`, where that is asked for.

        Raises:
            UsageError: It is damaged, or this is a run, which has none.
        """
        if self.verb == "run":
            raise UsageError(f"{self.folder} holds a run, which has sites and turns but no whole conversations")
        yield from _lines(self.folder / "conversations.jsonl")
        if dropped and (self.folder / "dropped.jsonl").exists():
            yield from _lines(self.folder / "dropped.jsonl")


def open_results(folder: str | Path) -> Results:
    """The finished results of `run`, `sample`, `clean` or `play` in a folder.

    Raises:
        UsageError: No such folder, none of ours, not finished, damaged.
    """
    folder = Path(folder)
    path = folder / "run.json"
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; name one that `selfplay run`, `clean` or `play` has written")
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{folder} holds no run.json, so it is none that `selfplay run`, `clean` or `play` wrote"
                         ) from None  # fmt: skip
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}); make the results anew") from None
    verb = record.get("verb", "run") if isinstance(record, dict) else None
    if not isinstance(record, dict) or verb not in VERBS or (verb == "run" and "sample" not in record):
        raise UsageError(f"{path} is not of a selfplay run, clean or play")
    if record.get("format", FORMAT) != FORMAT:
        raise UsageError(f"{folder} was made by another version of selfplay (format {record['format']!r}, this one "
                         f"reads {FORMAT})")  # fmt: skip
    if record.get("status") != "done":
        raise UsageError(f"{folder} is not finished (status: {record.get('status')}); the command that began it goes on"
                         " from there")  # fmt: skip
    return Results(folder, verb, record)


def _number(path: Path) -> tuple[int, str]:
    name = path.parent.name
    digits = name.removeprefix("round-")
    return (int(digits), "") if digits.isdecimal() else (1 << 60, name)


def _sampled(results: Results) -> Iterator[Tables]:
    """Of a run, by the first sites of its parts: an engine that answers out of order leaves them otherwise."""
    parts = Parts(results.folder)
    kind = "turns" if results.record.get("select") is not None else "sampled"
    numbers = {*parts.parts("sites"), *parts.parts(kind)}
    first = {number: _read(parts, kind, number, ["ordinal"])["ordinal"].min() for number in numbers}
    for number in sorted(first, key=lambda n: (first[n] is None, first[n])):
        turns = _shaped(_read(parts, kind, number, list(TURNS)), TURNS).with_columns(bad=~pl.col("genuine"))
        sites = _shaped(_read(parts, "sites", number, list(SITES)), SITES)
        yield sites.sort("ordinal"), turns.sort("ordinal", "rank", "temperature", "sample", nulls_last=True)


def _read(parts: Parts, kind: str, number: int, wanted: list[str]) -> pl.DataFrame:
    """Those of the wanted columns that a part has."""
    path = parts.path(kind, number)
    try:
        there = pl.read_parquet_schema(path)
        return parts.read(kind, number, [name for name in wanted if name in there])
    except (SelfplayError, pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        why = "missing" if not path.exists() else "damaged"
        raise UsageError(
            f"{path} is {why}; give the command that made {parts.folder} again: it makes the part anew"
        ) from error


def _shaped(table: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """With all columns of `schema` and no others, null where the table has none."""
    return table.select(
        pl.col(name).cast(kind, strict=False) if name in table.columns else pl.lit(None, kind).alias(name)
        for name, kind in schema.items()
    )


def _cleaned(results: Results) -> Iterator[Tables]:
    """Of cleaned data: the conversations that stayed, then those that did not."""
    sites: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    count = chars = 0
    for name in ("conversations.jsonl", "dropped.jsonl"):
        path = results.folder / name
        if name == "dropped.jsonl" and not path.exists():
            continue
        for line, row in enumerate(_lines(path), 1):
            try:
                more_sites, more_turns = _conversation(row, count)
            except (KeyError, TypeError, IndexError, AttributeError, ValueError):
                raise UsageError(f"{path} line {line} is no row of `selfplay clean`; make the results anew") from None
            sites += more_sites
            turns += more_turns
            count += len(more_sites)
            chars += sum(len(site["messages"]) for site in more_sites)
            if chars > PART_CHARS or len(turns) >= 10_000:
                yield _tables(sites, turns)
                sites, turns, chars = [], [], 0
    if sites:
        yield _tables(sites, turns)


def _tables(sites: list[dict[str, Any]], turns: list[dict[str, Any]]) -> Tables:
    return pl.DataFrame(sites, schema=SITES, strict=False), pl.DataFrame(turns, schema=TURNS, strict=False)


def _conversation(row: Mapping[str, Any], ordinal: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Sites and turns of one cleaned conversation, the sites numbered from `ordinal`."""
    left = row["messages"]
    messages = row.get("original_messages") or left
    same = next(
        (i for i, (a, b) in enumerate(zip(messages, left, strict=False)) if a != b), min(len(messages), len(left))
    )
    dropped = row.get("dropped_for")
    extra = json.dumps({key: value for key, value in row.items() if key not in OWN}, ensure_ascii=False)
    model = row.get("model")
    sites: dict[str, dict[str, Any]] = {}
    turns: list[dict[str, Any]] = []
    sample = 0
    for judged in row["user_turns"]:
        end = index = judged["index"]
        while messages[end - 1]["role"] != "assistant":  # user messages in a row have one context
            end -= 1
        site_id = f"{row['id']}#{end - 1}"
        key = {"site_id": site_id, "conversation_id": str(row["id"])}
        sample = sample + 1 if site_id in sites else 0
        if site_id not in sites:
            context = json.dumps(messages[:end], ensure_ascii=False)
            said = messages[index]["content"]
            place = {"ordinal": ordinal + len(sites), "messages": context, "next_user": said, "extra": extra}
            sites[site_id] = key | place
        kept = dropped is None and index < same
        why = None if kept else str(dropped) if dropped is not None else "flagged" if judged["bad"] else "cut"
        turns.append(
            key
            | {name: judged.get(name) for name in ("label", "genuine", "p_genuine", "rule", "evidence", "rule_set")}
            | {
                "ordinal": sites[site_id]["ordinal"],
                "model": model if isinstance(model, str) else None,
                "sample": sample,
                "turn": messages[index]["content"],
                "bad": judged["bad"],
                "selected": kept,
                "rejected_for": why,
            }
        )
    return list(sites.values()), turns


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file of ours."""
    number = 0
    try:
        with open(path, "rb") as file:
            for line in file:
                number += 1
                row = parse_line(line)
                if not isinstance(row, dict):
                    raise BadRow("not an object")
                yield row
    except FileNotFoundError:
        raise UsageError(f"{path} is missing; make the results anew") from None
    except (OSError, BadRow) as error:
        raise UsageError(f"{path} is damaged at line {number}: {error}; make the results anew") from None
