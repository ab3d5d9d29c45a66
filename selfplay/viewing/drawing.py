"""Which turns people are to label, in an order that tells nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from selfplay.judge.sheet import opaque_id
from selfplay.results import Results
from selfplay.tables import context_columns

WRITTEN = ("site_id", "conversation_id", "model", "primed", "temperature", "sample", "seed", "finish_reason")
"""What a row says of a turn beside context and text: who wrote it and how, nothing of what was found out since."""


def draw(results: Results, n: int, seed: int) -> list[dict[str, Any]]:
    """At most `n` different turns in random order: `id` (opaque), `messages`, `turn`, and `row`, what is to be saved.

    The order depends on the seed and on what the turns are; a larger `n` puts more behind. Memory grows with `n` only.
    """
    found: dict[str, tuple[bytes, dict[str, Any]]] = {}
    for sites, turns in results.parts():
        contexts = {row["site_id"]: row for row in sites.iter_rows(named=True)}
        known: dict[str, tuple[list[Any], dict[str, Any]]] = {}
        for turn in turns.iter_rows(named=True):
            site = contexts[turn["site_id"]]
            if site["site_id"] not in known:
                messages = json.loads(site["messages"])
                known[site["site_id"]] = messages, context_columns(messages)
            messages, context = known[site["site_id"]]
            text = turn["turn"] or ""
            name = opaque_id({**context, "turn": text})
            if name not in found:
                order = hashlib.sha256(f"{seed} {name}".encode()).digest()
                row = turn_row(turn, site, messages, results.verb)
                found[name] = order, {"id": name, "messages": messages, "turn": text, "row": row}
        if len(found) > 2 * n:
            found = dict(sorted(found.items(), key=lambda item: item[1][0])[:n])
    return [item for _, item in sorted(found.values(), key=lambda each: each[0])[:n]]


def turn_row(turn: Mapping[str, Any], site: Mapping[str, Any], messages: list[Any], verb: str) -> dict[str, Any]:
    """A row as `filter`, `judge` and `train` take it, with the id that `turns.jsonl` of a run has."""
    key = [turn["site_id"], *([] if turn["temperature"] is None else [f"{turn['temperature']:g}"]), str(turn["sample"])]
    told = {name: turn[name] for name in WRITTEN if turn[name] is not None}
    source = json.loads(site["extra"] or "{}").get("source")
    # In data that was cleaned it is the source of the turns too; elsewhere the model wrote them.
    writer = {"source": source} if verb == "clean" and isinstance(source, str) else {}
    return {"id": "/".join(key), "messages": messages, "turn": turn["turn"] or "", **told, **writer}
