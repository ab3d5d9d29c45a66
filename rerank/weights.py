"""The fusion's learned numbers: one additive model per tier set, readable as JSON.

A model is an intercept and one piecewise-linear shape per signal; a turn's log-odds are the intercept plus what each
shape says at the turn's value. Nothing else is learned, so that the file can be read, plotted and argued with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from rerank.anchors import SIGNALS as TEXT_SIGNALS
from rerank.errors import WeightsError
from rerank.numbers import floats, number, short
from rerank.probe import GRADE, Probe

SCHEMA_VERSION = 1
TIER_SIGNALS: Mapping[str, tuple[str, ...]] = {
    "text": TEXT_SIGNALS,
    "wording": (
        "names_new",
        "new_share",
        "new",
        "specific",
        "first_person",
        "pointing",
        "reaction",
        "doubt",
        "lower_start",
        "word_length",
        "sentences",
        "compression",
        "query_recall",
        "query_similarity",
        "query_new",
        "answer_recall",
        "answer_cover",
        "answer_sentence",
        "answer_only_share",
    ),
    "embedding": ("cos_query", "cos_answer", "cos_answer_best", "cos_margin"),
    "state": (GRADE,),
    "likelihood": (
        "answer_pmi",
        "answer_pmi_sum",
        "answer_pmi_share",
        "role_ratio",
        "copy_gain",
        "fluency",
        "mean_logprob",
        "min_logprob",
    ),
    "cross": ("cross_score",),
}
_STRONGEST_FIRST = ("state", "likelihood", "embedding", "cross", "wording")
"""Of the tiers beside text, by what each adds to it."""
TIER_SETS = tuple(
    "+".join(tier for tier in TIER_SIGNALS if tier == "text" or tier in chosen)
    for chosen in (
        {tier for tier, has in zip(_STRONGEST_FIRST, which, strict=True) if has}
        for which in product((False, True), repeat=len(_STRONGEST_FIRST))
    )
)
"""Every set of tiers that can have a model of its own; each needs all of its tiers. Later ones are preferred. They are
counted through as binary numbers, the strongest tier the first digit: of two sets, that one is preferred which has the
strongest of the tiers that only one of them has."""

_DEFAULT = Path(__file__).with_name("default_weights.json")


@dataclass(frozen=True, slots=True)
class Shape:
    """Log-odds `values` at ascending `knots`, linear between them and constant outside; mean 0 over the training."""

    knots: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """Log-odds of groundedness: `intercept` plus one shape per signal."""

    intercept: float
    shapes: Mapping[str, Shape]


@dataclass(frozen=True, slots=True)
class Weights:
    """All that ranking needs to know.

    Attributes:
        models: By tier set (`TIER_SETS`).
        common_words: Words too frequent to be an anchor.
        measured_with: Embedder, scorer and cross-encoder (model, revision, template hash) whose signals taught the
            models.
        training: Hash and size of the judged turns.
        cv: Figures of the grouped cross-validation, by tier set.
        probe: Makes `state_grade` of hidden states; None where nothing was learned from any.
    """

    models: Mapping[str, Model]
    common_words: frozenset[str] = frozenset()
    measured_with: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    cv: Mapping[str, Any] = field(default_factory=dict)
    probe: Probe | None = None

    @property
    def tiers(self) -> frozenset[str]:
        """The tiers that any of the models reads."""
        return frozenset(tier for name in self.models for tier in name.split("+"))

    @property
    def layer(self) -> int | None:
        """The layer of the scorer whose states the probe reads; None where there is no probe."""
        return None if self.probe is None else self.probe.layer


@lru_cache(maxsize=8)
def load_weights(path: str | None = None) -> Weights:
    """Reads a weights file; the shipped one if `path` is None.

    Raises:
        WeightsError: It is missing, is not JSON, or does not say what it must.
    """
    place = Path(path) if path is not None else _DEFAULT
    try:
        raw = json.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{place}: cannot read it: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{place}: not JSON: {error}") from None
    try:
        return weights_from_json(raw)
    except WeightsError as error:
        raise WeightsError(f"{place}: {error}") from None


def save_weights(weights: Weights, path: str) -> None:
    """Writes `weights` as JSON with sorted keys and floats of six digits, so that diffs can be read."""
    Path(path).write_text(json.dumps(weights_to_json(weights), indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def weights_to_json(weights: Weights) -> dict[str, Any]:
    """The file's content; `weights_from_json` is its inverse."""
    return {
        "schema_version": SCHEMA_VERSION,
        "models": {
            name: {
                "intercept": short(model.intercept),
                "shapes": {
                    signal: {"knots": [short(x) for x in shape.knots], "values": [short(x) for x in shape.values]}
                    for signal, shape in model.shapes.items()
                },
            }
            for name, model in weights.models.items()
        },
        "common_words": sorted(weights.common_words),
        "measured_with": dict(weights.measured_with),
        "training": dict(weights.training),
        "cv": dict(weights.cv),
        **({} if weights.probe is None else {"probe": weights.probe.to_json()}),
    }


def weights_from_json(raw: Any) -> Weights:
    """Checks every part of a weights file's content.

    Raises:
        WeightsError: With the place inside the file.
    """
    if not isinstance(raw, dict):
        raise WeightsError("the file must hold one JSON object")
    if "schema_version" not in raw:
        raise WeightsError("no ranking weights as `selfplay train-ranker` writes them")
    if raw["schema_version"] != SCHEMA_VERSION:
        raise WeightsError(
            f"schema_version is {raw['schema_version']!r}, this version reads {SCHEMA_VERSION}; "
            "train again with `selfplay train-ranker`"
        )
    models = raw.get("models")
    if not isinstance(models, dict) or "text" not in models:
        raise WeightsError("`models` must hold at least the tier set `text`")
    for name in models:
        if name not in TIER_SETS:
            raise WeightsError(f"models: no tier set {name!r}; there are {', '.join(TIER_SETS)}")
    common = raw.get("common_words", [])
    if not isinstance(common, list) or not all(isinstance(word, str) for word in common):
        raise WeightsError("`common_words` must be a list of words")
    parts = {}
    for key in ("measured_with", "training", "cv"):
        parts[key] = raw.get(key, {})
        if not isinstance(parts[key], dict):
            raise WeightsError(f"`{key}` must be an object")
    probe = None if raw.get("probe") is None else Probe.from_json(raw["probe"])
    for name in models:
        if probe is None and "state" in name.split("+"):
            raise WeightsError(f"models.{name} reads states, but there is no `probe` that makes a signal of them")
    return Weights(
        {name: _model(value, name) for name, value in models.items()}, frozenset(common), **parts, probe=probe
    )


def _model(raw: Any, name: str) -> Model:
    if not isinstance(raw, dict) or not isinstance(raw.get("shapes"), dict):
        raise WeightsError(f"models.{name} must have an intercept and shapes")
    known = {signal for tier in name.split("+") for signal in TIER_SIGNALS[tier]}
    shapes = {}
    for signal, shape in raw["shapes"].items():
        where = f"models.{name}.shapes.{signal}"
        if signal not in known:
            raise WeightsError(f"{where}: no such signal in {name}")
        if not isinstance(shape, dict):
            raise WeightsError(f"{where} must have knots and values")
        knots, values = (floats(shape.get(key), f"{where}.{key}") for key in ("knots", "values"))
        if len(knots) != len(values) or not knots:
            raise WeightsError(f"{where}: as many values as knots, at least one")
        if any(right <= left for left, right in pairwise(knots)):
            raise WeightsError(f"{where}: knots must ascend")
        shapes[signal] = Shape(knots, values)
    return Model(number(raw.get("intercept"), f"models.{name}.intercept"), shapes)
