"""Measure, filter, rank, select: what happens to a sampled part."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import polars as pl

import filters
import rerank
from selfplay import measure
from selfplay.config import SelectConfig
from selfplay.engines.base import Engine
from selfplay.pipeline import Judge
from selfplay.selection import select
from selfplay.tables import CONTEXT, with_context
from selfplay.templates import ChatTemplate

TIERS: dict[str, tuple[str, ...]] = {
    "text": (),
    "text+embedding": ("embedding",),
    "all": ("embedding", "likelihood"),
}


@dataclass(frozen=True, slots=True)
class Options:
    """How candidates are judged and chosen; None means what is shipped."""

    rules: str | None = None
    weights: str | None = None
    tiers: str = "auto"
    min_groundedness: float = 0.0
    allow_truncated: bool = False


def shipped(path: str | None, package: str, name: str) -> tuple[str, str]:
    """Name and hash of a rules or weights file, the shipped one for None."""
    import importlib.resources

    data = Path(path).read_bytes() if path else importlib.resources.files(package).joinpath(name).read_bytes()
    return path or "default", hashlib.blake2b(data, digest_size=8).hexdigest()
