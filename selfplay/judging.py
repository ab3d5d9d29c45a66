"""Measure, filter, rank, select: what happens to a sampled part, with what, and what that needs."""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

import filters
import rerank
from selfplay import measure
from selfplay.config import SelectConfig
from selfplay.embedding import load_embedder
from selfplay.engines.base import Engine
from selfplay.errors import SelfplayError, UsageError
from selfplay.pipeline import Judge
from selfplay.selection import select
from selfplay.tables import CONTEXT, with_context
from selfplay.templates import ChatTemplate

TIERS = {"text": ("text",), "text+embedding": ("text", "embedding"), "all": ("text", "embedding", "likelihood")}


@dataclass(frozen=True, slots=True)
class Options:
    """How candidates are judged and chosen; None means what is shipped."""

    rules: str | None = None
    weights: str | None = None
    tiers: str = "auto"
    min_groundedness: float = 0.0
    allow_truncated: bool = False


@dataclass(frozen=True, slots=True)
class Scorer:
    """An engine that scores, with its template. `own_tokens`: it also sampled the turns, so their ids are its own."""

    engine: Engine
    template: ChatTemplate
    own_tokens: bool = False


def choose_tiers(name: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """The tiers to measure for `--tiers`, and for `auto` why others are left out.

    Raises:
        SelfplayError: A tier asked for by name is not installed.
    """
    there, missing = measure.available_tiers()
    if name == "auto":
        return tuple(tier for tier in TIERS["all"] if tier in there), missing
    for tier in TIERS[name]:
        if tier in missing:
            raise SelfplayError(f"--tiers {name}: {missing[tier]}")
    return TIERS[name], {}


def configure(options: Options) -> SelectConfig:
    """What decides the outcome, to be saved and compared on resume.

    Raises:
        SelfplayError: A file cannot be read, or a tier is not installed.
    """
    tiers, _ = choose_tiers(options.tiers)
    return SelectConfig(
        rules=options.rules or "default",
        rules_hash=_hash(options.rules, "filters", "default_rules.json"),
        weights=options.weights or "default",
        weights_hash=_hash(options.weights, "rerank", "default_weights.json"),
        tiers=tiers,
        min_groundedness=options.min_groundedness,
        allow_truncated=options.allow_truncated,
    )


def _hash(path: str | None, package: str, shipped: str) -> str:
    try:
        data = Path(path).read_bytes() if path else importlib.resources.files(package).joinpath(shipped).read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    return hashlib.blake2b(data, digest_size=8).hexdigest()


@contextmanager
def opened(config: SelectConfig, options: Options, scorer: Scorer | None = None) -> Iterator[Judge]:
    """The judge of a run. Models are loaded once; a scorer of our own is closed at the end.

    Args:
        scorer: The generating engine where it is the scorer that rules and weights were learned with.
    """
    rules = filters.load_rules(options.rules)
    weights = rerank.load_weights(options.weights)
    own: Engine | None = None
    if scorer is None and "likelihood" in config.tiers:
        own, template = measure.default_scorer()
        scorer = Scorer(own, template)

    def judge(turns: pl.DataFrame, sites: pl.DataFrame) -> pl.DataFrame:
        table = with_context(turns, sites)
        table = measure.measure(
            table,
            config.tiers,
            embedder=load_embedder() if "embedding" in config.tiers else None,
            scorer=scorer.engine if scorer else None,
            template=scorer.template if scorer else None,
            own_tokens=scorer.own_tokens if scorer else False,
        )
        table = rerank.rank(filters.label(table, rules), weights, by="site_id")
        return select(table, config.min_groundedness, config.allow_truncated).drop(CONTEXT)

    try:
        yield judge
    finally:
        if own is not None:
            own.close()
