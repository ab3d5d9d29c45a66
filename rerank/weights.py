"""The fusion's learned numbers: one additive model per tier set, readable as JSON.

A model is an intercept and one piecewise-linear shape per signal; a turn's log-odds are the intercept plus what each
shape says at the turn's value. Nothing else is learned, so that the file can be read, plotted and argued with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from rerank.anchors import SIGNALS as TEXT_SIGNALS

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
TIER_SETS = tuple(
    "+".join(["text", *(tier for tier, has in zip(list(TIER_SIGNALS)[1:], which, strict=True) if has)])
    for which in sorted(product((False, True), repeat=4), key=lambda has: (has[2], has[1], has[3], has[0]))
)
"""Every set of tiers that can have a model of its own; each needs all of its tiers. Later ones are preferred: what has
likelihoods before what has cosines, before a cross-encoder's score, before wording."""

_DEFAULT = Path(__file__).with_name("default_weights.json")


class WeightsError(ValueError):
    """A weights file that cannot be used; the message says where and why."""


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
    """

    models: Mapping[str, Model]
    common_words: frozenset[str] = frozenset()
    measured_with: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    cv: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tiers(self) -> frozenset[str]:
        """The tiers that any of the models reads."""
        return frozenset(tier for name in self.models for tier in name.split("+"))


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
                "intercept": _short(model.intercept),
                "shapes": {
                    signal: {"knots": [_short(x) for x in shape.knots], "values": [_short(x) for x in shape.values]}
                    for signal, shape in model.shapes.items()
                },
            }
            for name, model in weights.models.items()
        },
        "common_words": sorted(weights.common_words),
        "measured_with": dict(weights.measured_with),
        "training": dict(weights.training),
        "cv": dict(weights.cv),
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
    return Weights({name: _model(value, name) for name, value in models.items()}, frozenset(common), **parts)


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
        knots, values = (_floats(shape.get(key), f"{where}.{key}") for key in ("knots", "values"))
        if len(knots) != len(values) or not knots:
            raise WeightsError(f"{where}: as many values as knots, at least one")
        if any(right <= left for left, right in pairwise(knots)):
            raise WeightsError(f"{where}: knots must ascend")
        shapes[signal] = Shape(knots, values)
    return Model(_floats([raw.get("intercept")], f"models.{name}.intercept")[0], shapes)


def _floats(raw: Any, where: str) -> tuple[float, ...]:
    if not isinstance(raw, list):
        raise WeightsError(f"{where} must be a list of numbers")
    for value in raw:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise WeightsError(f"{where}: {value!r} is no finite number")
    return tuple(float(value) for value in raw)


def _short(value: float) -> float:
    return float(f"{value:.6g}")
