"""Learns the fusion's weights from judged turns.

The target is the judge's grade divided by 3, a number in 0..1; the fit is a fractional logit (Papke & Wooldridge
1996): logistic regression in which a turn of grade g counts g/3 for and 1 - g/3 against. Where labels are known the
shapes are fitted to a mixture with whether the turn is genuine, which tells grounded follow-ups better from turns that
merely stay on the subject; offset and scale of the log-odds are then fitted to the grade alone, so that the output is
an expected grade.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rerank.fuse import add_text_signals
from rerank.learn_probe import WRITTEN_WEIGHT, fit_probe
from rerank.logit import fractional_logit
from rerank.probe import GRADE, STATE, Probe, read_states
from rerank.weights import TIER_SETS, TIER_SIGNALS, Model, Shape, Weights

Floats = npt.NDArray[np.float64]
QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
"""Where the shapes bend: quantiles of the training values."""
GENUINE = "follow_up"
"""The label of a turn that is one."""
WRITTEN = "written"
"""The `source` of turns that were composed, not sampled."""
GENUINE_SHARE = 0.4
"""Of the target: whether the turn is genuine; the rest is its grade."""

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def train(
    table: pl.DataFrame,
    *,
    measured_with: Mapping[str, Any] | None = None,
    layer: int | None = None,
    **options: Any,
) -> Weights:
    """Fits one model per tier set whose signals the table has, and a probe where it has hidden states.

    Args:
        table: Judged turns: `site_id`, `turn`, `answer`, `history` or `query`, `grade` (0..3); optional signals,
            `turn_state`, `source`, where `written` marks composed turns, `label`, and `context`, which says what
            belongs to one conversation (else `site_id` does).
        measured_with: What measured the signals, recorded in the weights.
        layer: Of the scorer, counted from 1, where `turn_state` was read; recorded too.
        options: For `fit`.

    Raises:
        ValueError: No judged turns, a column that is missing, or states that are not lists of equally many numbers.
    """
    absent = [name for name in ("site_id", "turn", "answer", "grade") if name not in table.columns]
    if absent or not len(table):
        raise ValueError(f"training needs the column `{absent[0]}`" if absent else "no judged turns to train on")
    common = common_words(table)
    spoken, probe = spoken_turns(table, common, layer)
    training = {"rows": len(table), "hash": training_hash(table)}
    return Weights(fit(spoken, **options), common, measured_with or {}, training, probe=probe)


def spoken_turns(
    table: pl.DataFrame, common: frozenset[str], layer: int | None = None
) -> tuple[pl.DataFrame, Probe | None]:
    """The turns that are not blank, with the signals of the tiers text and state: what `fit` takes; and the probe.

    `state_grade` is what probes say that did not see the turn's conversation; the probe that is returned saw all. There
    is neither where fewer than two conversations have states.

    Raises:
        ValueError: States that are not lists of equally many numbers.
    """
    spoken = add_text_signals(table.filter(pl.col("turn").str.strip_chars() != ""), common).drop(GRADE, strict=False)
    states = read_states(spoken[STATE]) if STATE in spoken.columns else None
    spoken = spoken.drop(STATE, strict=False)
    if states is None:
        return spoken, None
    known = np.isfinite(states[:, 0])
    conversations = spoken["context" if "context" in spoken.columns else "site_id"].filter(pl.Series(known))
    if conversations.n_unique() < 2:
        return spoken, None
    weight = np.where(_written(spoken), WRITTEN_WEIGHT, 1.0)
    target = _target(spoken, GENUINE_SHARE)
    probe, apart = fit_probe(states[known], target[known], weight[known], conversations, layer)
    grades = np.full(len(spoken), np.nan)
    grades[known] = apart
    return spoken.with_columns(pl.Series(GRADE, grades).fill_nan(None)), probe


def fit(
    spoken: pl.DataFrame,
    *,
    penalty: float = 0.05,
    sampled_weight: float = 8.0,
    genuine: float = GENUINE_SHARE,
    without: Collection[str] = (),
    sets: Collection[str] = TIER_SETS,
) -> dict[str, Model]:
    """One model per tier set whose signals the table has, by name of the set.

    Args:
        spoken: What `spoken_turns` gives.
        penalty: L2 penalty on the standardised slopes, against the mean cross-entropy (nats).
        sampled_weight: Weight of a turn that a model sampled, against 1 for a composed one.
        genuine: Share of the target that is whether the turn is genuine; the rest is its grade.
        without: Signals to leave out, to see what they are worth.
        sets: Those that are wanted.
    """
    weight = np.where(_written(spoken), 1.0, sampled_weight)
    grade, target = _grade(spoken), _target(spoken, genuine)
    models = {}
    for name in (name for name in learnable(spoken.columns) if name in sets):
        known = spoken.select(pl.all_horizontal(_any_known(spoken, tier) for tier in name.split("+"))).to_series()
        mask = known.to_numpy()
        if mask.any():
            signals = [signal for tier in name.split("+") for signal in TIER_SIGNALS[tier] if signal not in without]
            models[name] = _fit(spoken.filter(known), signals, target[mask], grade[mask], weight[mask], penalty)
    return models


def learnable(columns: Collection[str]) -> list[str]:
    """The tier sets that a table with these columns has all signals of; those of the text tier are added to any, and
    that of states is made of `turn_state`."""
    have = {*columns, *TIER_SIGNALS["text"], *((GRADE,) if STATE in columns else ())}
    tiers = {tier for tier, signals in TIER_SIGNALS.items() if {*signals} <= have}
    return [name for name in TIER_SETS if {*name.split("+")} <= tiers]


def common_words(table: pl.DataFrame, share: float = 0.08) -> frozenset[str]:
    """Words that stand in at least `share` of the contexts: too frequent to tie a turn to one answer."""
    contexts = table.unique("site_id", maintain_order=True)
    questions = contexts["history"].list.join("\n") if "history" in table.columns else contexts["query"]
    counts: Counter[str] = Counter()
    for question, answer in zip(questions, contexts["answer"], strict=True):
        counts.update(set(_WORD.findall(f"{question or ''}\n{answer}".casefold())))
    return frozenset(word for word, count in counts.items() if count >= max(2, share * len(contexts)))


def training_hash(table: pl.DataFrame) -> str:
    """First 16 hex digits of a SHA-256 over sites, turns and grades, whatever their order."""
    rows = sorted(json.dumps(row, ensure_ascii=False) for row in table.select("site_id", "turn", "grade").iter_rows())
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def _written(table: pl.DataFrame) -> npt.NDArray[np.bool_]:
    written = table["source"] == WRITTEN if "source" in table.columns else pl.repeat(False, len(table), eager=True)
    return written.to_numpy()


def _grade(table: pl.DataFrame) -> Floats:
    return np.clip(table["grade"].to_numpy() / 3, 0, 1).astype(np.float64)


def _target(table: pl.DataFrame, genuine: float) -> Floats:
    if "label" not in table.columns:
        return _grade(table)
    is_genuine = (table["label"] == GENUINE).fill_null(False).to_numpy()
    return (1 - genuine) * _grade(table) + genuine * is_genuine


def _any_known(table: pl.DataFrame, tier: str) -> pl.Expr:
    return pl.any_horizontal(pl.col(name).is_not_null() for name in TIER_SIGNALS[tier] if name in table.columns)


def _fit(
    table: pl.DataFrame, signals: list[str], target: Floats, grade: Floats, weight: Floats, penalty: float
) -> Model:
    blocks, knots, means = [], {}, {}
    for signal in signals:
        values = table[signal].cast(pl.Float64).to_numpy()
        knots[signal] = _knots(values[~np.isnan(values)])
        block = _ramps(values, knots[signal])
        # A null says nothing: it sits at the mean, where the centred shape is 0.
        means[signal] = np.average(block[~np.isnan(values)], axis=0) if block.size else np.zeros(block.shape[1])
        block[np.isnan(values)] = means[signal]
        blocks.append(block - means[signal])
    features = np.hstack([*blocks, np.zeros((len(table), 0))])
    spread = features.std(axis=0)
    spread[spread == 0] = 1.0
    weight = weight / weight.sum()
    intercept, coefficients = fractional_logit(features / spread, target, weight, penalty)
    odds = intercept + features / spread @ coefficients
    if odds.std() > 0:
        offset, scale = fractional_logit(odds[:, None], grade, weight, 0.0)
        intercept, coefficients = float(offset + scale[0] * intercept), coefficients * scale[0]
    slopes = coefficients / spread
    shapes, start = {}, 0
    for signal in signals:
        width = len(knots[signal]) - 1
        part = slopes[start : start + width]
        start += width
        if width:
            at_knots = _ramps(np.asarray(knots[signal]), knots[signal]) - means[signal]
            shapes[signal] = Shape(tuple(knots[signal]), tuple(float(x) for x in at_knots @ part))
    return Model(intercept, shapes)


def _knots(values: Floats) -> list[float]:
    """Quantiles, rounded as they are stored; a signal with two values gets two knots, one with one value none."""
    if not len(values):
        return [0.0]
    if len(np.unique(values)) == 2:
        return [float(x) for x in np.unique(values)]
    return sorted({float(f"{x:.6g}") for x in np.quantile(values, QUANTILES)})


def _ramps(values: Floats, knots: list[float]) -> Floats:
    """One column per stretch between knots: 0 before it, rising to 1 at its end. Their sums are piecewise linear."""
    columns = [np.clip((values - a) / (b - a), 0, 1) for a, b in pairwise(knots)]
    return np.stack(columns, axis=1) if columns else np.zeros((len(values), 0))
