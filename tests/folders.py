"""Folders as our verbs leave them, made by hand: for whatever reads results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from selfplay.config import SampleConfig, SelectConfig
from selfplay.runs import Run
from selfplay.tables import SITES

QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Eggs?"}]
CONTEXT = [*QUESTION, {"role": "assistant", "content": "Eight minutes."}]
SAMPLE = SampleConfig(source="in.jsonl", source_hash="h", model="tiny", temperatures={1.0: 4}, seed=3)
SELECT = SelectConfig(rules="default", rules_hash="r", weights="default", weights_hash="w", tiers=("text",))


def candidate(
    turn: str, groundedness: float = 0.5, p: float = 0.5, reason: str | None = None, **more: Any
) -> dict[str, Any]:
    """A judged candidate: chosen where `reason` is None; `flagged` ones get a rule unless one is given."""
    flagged = reason == "flagged"
    return {
        "turn": turn, "groundedness": groundedness, "p_genuine": p, "rejected_for": reason, "finish_reason": "stop",
        "label": "generic" if flagged else "follow_up", "rule": "fits everywhere" if flagged else None,
        "evidence": turn if flagged else None, "rule_set": "text", "selected": reason is None, "genuine": not flagged,
        **more,
    }  # fmt: skip


def run_folder(
    folder: Path,
    parts: Sequence[Sequence[Sequence[Mapping[str, Any]]]],
    contexts: Mapping[str, list[dict[str, Any]]] | None = None,
    extra: Mapping[str, Any] | None = None,
    prefix: str = "c",
    **record: Any,
) -> Path:
    """A finished run: parts of sites of candidates, each site's in the order of their ranks.

    Args:
        contexts: Messages by conversation id, `CONTEXT` where it has none.
        extra: Unknown columns of every conversation.
        record: What `run.json` says besides.
    """
    run = Run(folder, SAMPLE.as_json(), SELECT.as_json())
    ordinal = 0
    for number, sites in enumerate(parts):
        rows, turns = [], []
        for candidates in sites:
            name = f"{prefix}{ordinal}"
            messages = (contexts or {}).get(name, CONTEXT)
            site = {"site_id": f"{name}#{len(messages) - 1}", "ordinal": ordinal, "conversation_id": name}
            told = {"messages": json.dumps(messages), "extra": json.dumps(dict(extra or {})), "next_user": "And tea?"}
            rows.append(site | told)
            drawn = {"model": "tiny", "primed": False, "temperature": 1.0, "seed": 7, "token_ids": [1, 2]}
            turns += [site | drawn | {"sample": at, "rank": at + 1} | dict(c) for at, c in enumerate(candidates)]
            ordinal += 1
        run.write("sites", number, pl.DataFrame(rows, schema=SITES))
        run.write("turns", number, pl.DataFrame(turns))
    run.save(status="done", **record)
    run.close()
    return folder


def judged(index: int, bad: bool = False, **more: Any) -> dict[str, Any]:
    """One of the `user_turns` of a cleaned conversation."""
    return {
        "index": index, "label": "malformed" if bad else "follow_up", "genuine": not bad, "bad": bad,
        "p_genuine": 0.1 if bad else 0.6, "rule": "plans aloud" if bad else None, "evidence": "e" if bad else None,
        "rule_set": "text", **more,
    }  # fmt: skip


def clean_folder(
    folder: Path, kept: Sequence[Mapping[str, Any]], dropped: Sequence[Mapping[str, Any]] = (), **record: Any
) -> Path:
    """Cleaned data."""
    folder.mkdir(parents=True, exist_ok=True)
    lines(folder / "conversations.jsonl", kept)
    lines(folder / "dropped.jsonl", dropped)
    (folder / "run.json").write_text(json.dumps({"format": 1, "verb": "clean", "status": "done"} | record))
    return folder


def play_folder(folder: Path, rounds: int, finished: Sequence[Mapping[str, Any]], **record: Any) -> Path:
    """Played dialogues: in each round two sites with a chosen turn and a flagged one."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, rounds + 1):
        sites = [[candidate(f"Turn {number}?", 0.9, 0.9), candidate("Ok.", 0.1, 0.1, "flagged")]] * 2
        name = f"round-{number:02d}"
        contexts = {f"c{i}": CONTEXT + dialogue(number - 1) for i in range(2)}
        run_folder(folder / name, [sites], contexts)
    lines(folder / "conversations.jsonl", finished)
    (folder / "run.json").write_text(json.dumps({"format": 1, "verb": "play", "status": "done"} | record))
    return folder


def dialogue(rounds: int) -> list[dict[str, Any]]:
    """User turns with their answers."""
    pairs = [(f"Turn {i}?", f"Answer {i}.") for i in range(1, rounds + 1)]
    return [m for u, a in pairs for m in ({"role": "user", "content": u}, {"role": "assistant", "content": a})]


def lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
