"""Learns rules and calibration from judged turns. Needs scikit-learn (`pip install 'selfplay-turns[train]'`).

What is cross-validated is split by conversation. Turns that were really sampled count foremost; written ones are
tidy, so that their figures are an upper bound, reported apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.calibration import FLAGGED, Calibration, sigmoid
from filters.features import FEATURES, TIERS, Features, compute
from filters.labels import Label
from filters.rules import Precision, Rule, RuleSet, wilson
from filters.search import fit_rules

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]
    Flags = NDArray[np.bool_]

WRITTEN = "written"
FOLDS = 10
REPLICATES = 50
WRITTEN_RULE_WEIGHT = 0.5
"""Weight of a written turn against a sampled one when rules are learned: rare faults are seen there alone."""

_TEXT_INPUTS = (
    FLAGGED, "chars", "lines", "compression", "unbalanced", "cut", "ends", "question", "after_question", "textbook",
    "reaction", "pointing", "first_person", "lower_start", "word_length", "query_cover", "query_similarity",
    "answer_cover", "answer_order", "answer_only", "answer_only_share", "new", "new_share",
    "numbers_answer",
)  # fmt: skip
INPUTS: dict[str, tuple[str, ...]] = {
    name: (*_TEXT_INPUTS, *(f.name for f in FEATURES.values() if f.tier in tiers and f.tier != "text"))
    for name, tiers in TIERS.items()
}


def train(table: pl.DataFrame, models: Mapping[str, Any] | None = None, seed: int = 0) -> RuleSet:
    """Rules with held-out precision, and a calibration for every tier set whose signals the table has.

    Args:
        table: The columns that `filters.label` takes, the judge's `label`, `source` (`written`, or the generator's
            name), `context` (the conversation), and the signal columns that were measured.
        models: `scorer` and `embedder` that measured the signals; kept in the rule set.

    Raises:
        ValueError: A column is missing, or a label is none of the rubric's.
    """
    for column in ("label", "source", "context"):
        if column not in table.columns:
            raise ValueError(f"judged turns need the column `{column}`")
    table = table.sort("context", "source", "turn")
    labels = np.array([Label(text).value for text in table["label"]])
    groups = table["context"].to_numpy().astype(str)
    sources = table["source"].to_numpy().astype(str)
    sampled = sources != WRITTEN
    if not sampled.any():
        raise ValueError("no sampled turns: every source is `written`, and those cannot calibrate p_genuine")
    features = compute(table)
    weights = np.where(sampled, 1.0, WRITTEN_RULE_WEIGHT)
    folds = _folds(groups, seed)
    rules, flagged = _rules_with_precision(features, labels, weights, sampled, folds)
    calibrations = {}
    for name, inputs in INPUTS.items():
        known = _known(features, inputs)
        if known[sampled].sum() >= 200:
            rows = np.flatnonzero(known)
            calibrations[name] = _calibrate(
                inputs, features.take(rows), flagged[rows], labels[rows], sources[rows], groups[rows], folds[rows], seed
            )
    training = {
        "sha256": _fingerprint(table),
        "turns": len(table),
        "sources": {str(source): int((sources == source).sum()) for source in np.unique(sources)},
        "conversations": len(np.unique(groups)),
        "folds": FOLDS,
        "held_out": _report(flagged, labels, sampled),
    }
    return RuleSet(rules, calibrations, training, dict(models or {}))


def _folds(groups: NDArray[np.str_], seed: int) -> NDArray[np.intp]:
    """Fold of every turn; all turns of a conversation are in one."""
    names, index = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    return np.asarray(order[index] % FOLDS, dtype=np.intp)


def _known(features: Features, inputs: tuple[str, ...]) -> Flags:
    signals = [name for name in inputs if name != FLAGGED and FEATURES[name].tier != "text"]
    if not signals:
        return np.ones(len(features), dtype=np.bool_)
    return np.asarray(np.isfinite(features.matrix(tuple(signals))).all(axis=1), dtype=np.bool_)


def _rules_with_precision(
    features: Features, labels: NDArray[np.str_], weights: Matrix, sampled: Flags, folds: NDArray[np.intp]
) -> tuple[tuple[Rule, ...], Flags]:
    """The final rules, their precision on turns of held-out conversations, and which turns were flagged there."""
    names = np.full(len(labels), "", dtype=object)
    for fold in range(FOLDS):
        train_rows, test_rows = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        rules = fit_rules(features.take(train_rows), labels[train_rows], weights[train_rows], sampled[train_rows])
        decided = RuleSet(rules).decide(features.take(test_rows))
        names[test_rows] = [rules[index].name if index >= 0 else "" for index in decided]
    final = tuple(
        Rule(
            rule.name,
            rule.label,
            rule.tests,
            support=rule.support,
            precision={
                source: _precision(rule, labels[(names == rule.name) & where])
                for source, where in (("sampled", sampled), (WRITTEN, ~sampled))
            },
        )
        for rule in fit_rules(features, labels, weights, sampled)
    )
    return final, names != ""


def _precision(rule: Rule, caught: NDArray[np.str_]) -> Precision:
    return Precision.count(
        len(caught), int((caught == rule.label.value).sum()), int((caught == Label.FOLLOW_UP.value).sum())
    )


def _calibrate(
    inputs: tuple[str, ...],
    features: Features,
    flagged: Flags,
    labels: NDArray[np.str_],
    sources: NDArray[np.str_],
    groups: NDArray[np.str_],
    folds: NDArray[np.intp],
    seed: int,
) -> Calibration:
    genuine = labels == Label.FOLLOW_UP.value
    sampled = sources != WRITTEN
    low, high, center, scale = _standard(inputs, features, flagged, sampled)
    empty = Calibration(inputs, low, high, center, scale, (), (), {})
    design = empty.design(features, flagged)
    choice = min(
        ((share, strength) for share in (0.0, 0.03, 0.1, 0.3) for strength in (0.03, 0.1, 0.3)),
        key=lambda pair: _log_loss(genuine[sampled], _held_out(design, genuine, sampled, folds, *pair)[sampled]),
    )
    held_out = _held_out(design, genuine, sampled, folds, *choice)
    figures: dict[str, Any] = {"written_weight": choice[0], "C": choice[1]}
    named = {"sampled": sampled, **{str(s): sources == s for s in np.unique(sources)}}
    for name, rows in named.items():
        figures[name] = quality(genuine[rows], held_out[rows], groups[rows], folds[rows], seed)
    rng = np.random.default_rng(seed)
    names, index = np.unique(groups, return_inverse=True)
    replicates = []
    for _ in range(REPLICATES):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[index]
        replicates.append(_logistic(design, genuine, sampled, times.astype(float), *choice))
    weights = _logistic(design, genuine, sampled, np.ones(len(design)), *choice)
    return Calibration(inputs, low, high, center, scale, weights, tuple(replicates), figures)


def _standard(inputs: tuple[str, ...], features: Features, flagged: Flags, sampled: Flags) -> list[tuple[float, ...]]:
    """Low, high, center and scale of each input on the sampled turns (1st and 99th percentile; mean; deviation)."""
    raw = np.column_stack([flagged if name == FLAGGED else features.values[name] for name in inputs])
    columns: Matrix = raw[sampled].astype(np.float64)
    low, high = (np.asarray(np.nanpercentile(columns, q, axis=0), dtype=np.float64) for q in (1, 99))
    clipped = np.clip(columns, low, high)
    scale = np.asarray(np.nanstd(clipped, axis=0), dtype=np.float64)
    rows = (low, high, np.nanmean(clipped, axis=0), np.where(scale > 1e-9, scale, 1.0))
    return [tuple(float(value) for value in row) for row in rows]


def _logistic(
    design: Matrix, genuine: Flags, sampled: Flags, times: Matrix, written_weight: float, strength: float
) -> tuple[float, ...]:
    """Slopes and intercept. Written turns share the slopes but have an intercept of their own, which is left out."""
    from sklearn.linear_model import LogisticRegression

    weights = times * np.where(sampled, 1.0, written_weight)
    rows = weights > 0
    inputs = np.column_stack([design[:, :-1], 3.0 * ~sampled])  # Times 3: hardly shrunk, as an intercept should be.
    model = LogisticRegression(C=strength, max_iter=1000).fit(inputs[rows], genuine[rows], sample_weight=weights[rows])
    return (*map(float, model.coef_[0][:-1]), float(model.intercept_[0]))


def _held_out(
    design: Matrix, genuine: Flags, sampled: Flags, folds: NDArray[np.intp], written_weight: float, strength: float
) -> Matrix:
    result = np.empty(len(design))
    for fold in range(FOLDS):
        inside = folds != fold
        weights = _logistic(
            design[inside], genuine[inside], sampled[inside], np.ones(inside.sum()), written_weight, strength
        )
        result[~inside] = sigmoid(design[~inside] @ np.array(weights))
    return result


def _log_loss(genuine: Flags, p: Matrix) -> float:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return float(-np.mean(np.where(genuine, np.log(p), np.log(1 - p))))


def quality(
    genuine: Flags, p: Matrix, groups: NDArray[np.str_], folds: NDArray[np.intp], seed: int = 0
) -> dict[str, Any]:
    """AUC, F1, Brier score and calibration error (ten bins of equal mass) with 95 % intervals by conversation.

    The threshold of F1 is chosen on the other folds.
    """
    from sklearn.metrics import roc_auc_score

    chosen = np.empty(len(p), dtype=np.bool_)
    for fold in np.unique(folds):
        here = folds == fold
        chosen[here] = p[here] >= _best_threshold(genuine[~here], p[~here])

    def figures(rows: NDArray[np.intp]) -> list[float]:
        y, q, c = genuine[rows], p[rows], chosen[rows]
        auc = float(roc_auc_score(y, q)) if 0 < y.sum() < len(y) else float("nan")
        return [
            auc,
            2 * float((y & c).sum()) / max(1, int(y.sum() + c.sum())),
            float(np.mean((q - y) ** 2)),
            _ece(y, q),
        ]

    names, index = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(index == i) for i in range(len(names))]
    rng = np.random.default_rng(seed)
    draws = [
        figures(np.concatenate([members[i] for i in rng.integers(len(names), size=len(names))])) for _ in range(200)
    ]
    low, high = np.nanpercentile(np.array(draws), [2.5, 97.5], axis=0)
    point = figures(np.arange(len(p)))
    return {
        "n": len(p),
        "conversations": len(names),
        "genuine": round(float(genuine.mean()), 4),
        "mean_p": round(float(p.mean()), 4),
        **{
            name: [round(float(x), 4) for x in (point[i], low[i], high[i])]
            for i, name in enumerate(("auc", "f1", "brier", "ece"))
        },
    }


def _best_threshold(genuine: Flags, p: Matrix) -> float:
    order = np.argsort(-p)
    hits = np.cumsum(genuine[order])
    f1 = 2 * hits / (np.arange(1, len(p) + 1) + genuine.sum())
    return float(p[order][int(np.argmax(f1))]) if len(p) else 0.5


def _ece(genuine: Flags, p: Matrix) -> float:
    order = np.argsort(p, kind="stable")
    bins = np.array_split(order, 10)
    return float(sum(len(b) * abs(genuine[b].mean() - p[b].mean()) for b in bins if len(b)) / len(p))


def _report(flagged: Flags, labels: NDArray[np.str_], sampled: Flags) -> dict[str, Any]:
    """What passes the rules on held-out conversations: yield, purity and recall by source."""
    genuine = labels == Label.FOLLOW_UP.value
    report = {}
    for name, rows in (("sampled", sampled), (WRITTEN, ~sampled)):
        passed, right = int((~flagged & rows).sum()), int((~flagged & genuine & rows).sum())
        report[name] = {
            "turns": int(rows.sum()),
            "passed": passed,
            "passed_genuine": right,
            "precision": [round(x, 4) for x in (right / max(1, passed), *wilson(right, passed))],
            "recall": [
                round(x, 4)
                for x in (right / max(1, int((genuine & rows).sum())), *wilson(right, int((genuine & rows).sum())))
            ],
        }
    return report


def _fingerprint(table: pl.DataFrame) -> str:
    """Hash of what was judged: context, source, turn, label, in sorted order."""
    digest = hashlib.sha256()
    for row in table.select("context", "source", "turn", "label").iter_rows():
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()
