"""What a dataset card tells, counted from finished results: models, settings, rules, defects, licences."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from selfplay.inputs.conversations import HashSet, hash64
from selfplay.results import Results

LICENSE_COLUMNS = ("license", "licence")
SOURCE_COLUMN = "source"
PRIVATE = ("source_hash",)
"""Settings that say nothing to a reader of the card."""
PATHS = ("source", "rules", "weights", "model", "tokenizer", "scorer_model", "cross_encoder")
"""Settings that may be paths on the machine where it ran; of those only the last part is told."""

Origin = tuple[str | None, str | None]
"""Source and licence."""


@dataclass(slots=True)
class Figures:
    """Counts over all turns of some results.

    Attributes:
        labels: Turns by label, and those of them that are good: chosen or kept, and without a fault.
        fired: Turns by rule set, rule and label.
        models: Turns by model, where it is known.
        origins: Conversations by source and licence, as their rows say; None where they say nothing.
    """

    turns: int = 0
    sites: int = 0
    conversations: int = 0
    labels: dict[str, tuple[int, int]] = field(default_factory=dict)
    fired: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    origins: Counter[Origin] = field(default_factory=Counter)


def count(results: Results) -> Figures:
    """Reads the results a part at a time."""
    found = Figures()
    found.origins.update(_origins(results))
    found.conversations = found.origins.total()
    good = pl.col("selected").fill_null(False) & ~pl.col("bad").fill_null(False)
    for sites, turns in results.parts():
        found.turns += len(turns)
        found.sites += len(sites)
        for label, all_of_it, good_ones in turns.group_by("label").agg(pl.len(), good.sum()).iter_rows():
            before = found.labels.get(label, (0, 0))
            found.labels[label] = (before[0] + all_of_it, before[1] + good_ones)
        fired = turns.filter(pl.col("rule").is_not_null()).group_by("rule_set", "rule", "label").len()
        found.fired.update({(rule_set, rule, label): n for rule_set, rule, label, n in fired.iter_rows()})
        found.models.update(dict(turns.filter(pl.col("model").is_not_null()).group_by("model").len().iter_rows()))
    return found


def _origins(results: Results) -> Iterator[Origin]:
    """Of every conversation."""
    if results.verb != "run":
        yield from map(origin, results.conversations(dropped=True))
        return
    seen = HashSet()
    for sites, _ in results.parts():
        for name, extra in sites.select("conversation_id", "extra").iter_rows():
            if seen.add(hash64(name)):
                yield origin(json.loads(extra or "{}"))


def origin(row: Mapping[str, Any]) -> Origin:
    """What a row says of its source and licence."""

    def stated(*names: str) -> str | None:
        texts = (row.get(name) for name in names)
        return next((text.strip() for text in texts if isinstance(text, str) and text.strip()), None)

    return stated(SOURCE_COLUMN), stated(*LICENSE_COLUMNS)


def settings(results: Results) -> dict[str, str]:
    """What decided the outcome, as `run.json` records it, by name; of replacements too, where they differ."""
    told: dict[str, str] = {}
    for source in [results, *(results.runs() if results.verb == "clean" else [])]:
        for part in ("sample", "policy", "select"):
            for name, value in _flat(source.record.get(part) or {}):
                if told.setdefault(name, value) != value:
                    told[f"{part if source is results else source.folder.name}.{name}"] = value
        engine = source.record.get("engine") or {}
        for name in ("device", "dtype"):
            if engine.get(name) is not None:
                told.setdefault(f"engine.{name}", str(engine[name]))
    versions = results.record.get("versions") or {}
    if versions:
        told["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    return told


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if value in (None, "", []) or name in PRIVATE:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", without_path(str(value)) if name in PATHS else str(value)


def without_path(name: str) -> str:
    """The last part of a path on this machine; a model's id stays whole."""
    return Path(name).name if Path(name).is_absolute() or name.startswith((".", "~")) or Path(name).exists() else name


def estimates(results: Results) -> dict[str, dict[str, Any]]:
    """The estimated shares of genuine turns that were recorded, by what they are of."""
    found = {}
    for source in {each.folder: each for each in [results, *results.runs()]}.values():
        place = "" if source is results else f"{source.folder.name}, "
        recorded = (source.record.get("summary") or {}).get("estimated_genuine") or {}
        for when, name in (("before", "all turns"), ("after", "chosen or kept turns")):
            if isinstance(recorded.get(when), Mapping):
                found[f"{place}{name}"] = dict(recorded[when])
    return found


def rules_used(results: Results) -> tuple[str | None, str | None]:
    """The rule file named in the record, None for the shipped one, and its hash where that is recorded."""
    record = results.record.get("select") or results.record.get("sample") or {}
    name = record.get("rules")
    return None if name in (None, "default", "text", "full") else str(name), record.get("rules_hash")
