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
from filters.features import compute
from selfplay import learned
from selfplay.choosing.selection import encoder, select
from selfplay.config import SelectConfig
from selfplay.learned import Learned, load_rules, load_weights
from selfplay.pipeline import Judge
from selfplay.signals.measure import STATE
from selfplay.signals.tiers import Measurer, Scorer, SignalModels, settle
from selfplay.signals.wording import rank
from selfplay.signals.writer import SELF
from selfplay.tables import CONTEXT, SAMPLED_STATE, with_context


@dataclass(frozen=True, slots=True)
class Options:
    """How candidates are judged and chosen, and what is written of them; None means what is shipped.

    `pairs` (`survivors`, `flagged`, `both`) decides no outcome: a finished run can be asked for them.
    """

    rules: str | None = None
    weights: str | None = None
    tiers: str = "auto"
    scorer_model: str | None = None
    cross_encoder: str | None = None
    min_groundedness: float = 0.0
    allow_truncated: bool = False
    select: int = 1
    diversity: float = 0.0
    pairs: str | None = None


def configure(options: Options, generator: str | None = None, states: bool = True) -> tuple[SelectConfig, list[str]]:
    """What decides the outcome, to be saved and compared on resume; and the tiers that are left out, one line each.

    Args:
        generator: The model that writes the turns.
        states: Whether the scorer's hidden states can be had.

    Raises:
        SelfplayError: A file cannot be used, or a tier or model asked for by name cannot be had.
    """
    scorer = generator if options.scorer_model == SELF else options.scorer_model
    rules, weights = load_rules(options.rules), load_weights(options.weights)
    models, read = SignalModels(scorer, options.cross_encoder), learned.reads(rules, weights, states)
    learned.layer(rules, weights)  # two that do not go together end here
    tiers, notes = settle(options.tiers, _learned(rules, weights), models, read)
    config = SelectConfig(
        rules=options.rules or "default",
        rules_hash=file_hash(options.rules, "filters", "default_rules.json"),
        weights=options.weights or "default",
        weights_hash=file_hash(options.weights, "rerank", "default_weights.json"),
        tiers=tiers,
        scorer_model=scorer,
        cross_encoder=options.cross_encoder,
        min_groundedness=options.min_groundedness,
        allow_truncated=options.allow_truncated,
        select=options.select,
        diversity=options.diversity,
    )
    return config, notes


def state_layer(options: Options) -> int | None:
    """The scorer's layer whose states are read."""
    return learned.layer(load_rules(options.rules), load_weights(options.weights))


def _learned(rules: filters.Rules, weights: rerank.Weights) -> Learned:
    return {"rules": rules.models, "weights": weights.measured_with}


def file_hash(path: str | None, package: str, shipped: str) -> str:
    """Of a rule or weight file, or of the one that `package` ships."""
    data = Path(path).read_bytes() if path else importlib.resources.files(package).joinpath(shipped).read_bytes()
    return hashlib.blake2b(data, digest_size=8).hexdigest()


@contextmanager
def opened(config: SelectConfig, options: Options, scorer: Scorer | None = None) -> Iterator[Judge]:
    """The judge of a run. Models are loaded once; a scorer of our own is closed at the end.

    Args:
        scorer: An engine that is the run's scorer; left open.
    """
    rules, weights = load_rules(options.rules), load_weights(options.weights)
    encode = encoder(config.tiers)
    models = SignalModels(config.scorer_model, config.cross_encoder)
    skip_cut = not config.allow_truncated
    measuring = Measurer(
        config.tiers,
        _learned(rules, weights),
        scorer=scorer,
        skip_cut=skip_cut,
        models=models,
        layer=learned.layer(rules, weights),
    )
    with measuring as measurer:

        def judge(turns: pl.DataFrame, sites: pl.DataFrame) -> pl.DataFrame:
            table = measurer(with_context(turns, sites))
            features = compute(table)
            table = rank(filters.label(table, rules, features), weights, "site_id", features)
            table = table.drop(STATE, SAMPLED_STATE, strict=False)
            # With diversity what is chosen here is provisional: a run chooses again once all sites are there.
            chosen = select(
                table, config.min_groundedness, config.allow_truncated, config.select, config.diversity, encode
            )
            return chosen.drop(CONTEXT)

        yield judge
