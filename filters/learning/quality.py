"""Figures of merit with 95 % intervals that resample conversations, never rows."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.labels import Label
from filters.resampling import clusters, resampled

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]
    Flags = NDArray[np.bool_]
    Texts = NDArray[np.str_]
    Rows = NDArray[np.intp]

DRAWS = 300


def with_interval(
    measure: Callable[[Rows], list[float]], groups: Texts, seed: int = 0
) -> list[tuple[float, float, float]]:
    """Each figure that `measure` gives for some rows: on all of them, and its 95 % bootstrap interval."""
    rng = np.random.default_rng(seed)
    members = clusters(groups)
    point = measure(np.arange(len(groups)))
    drawn = np.array([measure(resampled(members, rng)) for _ in range(DRAWS)])
    with warnings.catch_warnings():  # A figure that no draw defines: the precision of a label never given.
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    return [
        (round(float(a), 4), round(float(b), 4), round(float(c), 4)) for a, b, c in zip(point, low, high, strict=True)
    ]


def report(given: Texts, truth: Texts, groups: Texts, seed: int = 0) -> dict[str, Any]:
    """Precision, recall and F1 per label and of genuine, macro-F1 over the labels that occur, and the confusion.

    Args:
        given: Labels by the rules, shape (n,).
        truth: Labels by the judge, shape (n,).
    """
    present = [label.value for label in Label if (truth == label.value).any()]

    def figures(rows: Rows) -> list[float]:
        each = [prf(given[rows] == label, truth[rows] == label) for label in present]
        return [float(np.mean([f1 for _, _, f1 in each])), *(value for triple in each for value in triple)]

    macro, *rest = with_interval(figures, groups, seed)
    labels = {
        label: {
            "n": int((truth == label).sum()),
            **dict(zip(("precision", "recall", "f1"), rest[3 * i : 3 * i + 3], strict=True)),
        }
        for i, label in enumerate(present)
    }
    return {
        "turns": len(given),
        "conversations": len(np.unique(groups)),
        "passed": int((given == Label.FOLLOW_UP.value).sum()),
        "macro_f1": macro,
        "labels": labels,
        "confusion": {
            label: {other: n for other in Label if (n := int(((truth == label) & (given == other.value)).sum()))}
            for label in present
        },
    }


def prf(given: Flags, truth: Flags) -> tuple[float, float, float]:
    """Precision, recall, F1; NaN precision where nothing was given, 0 where nothing was right."""
    hits = int((given & truth).sum())
    precision = hits / given.sum() if given.any() else float("nan")
    recall = hits / truth.sum() if truth.any() else float("nan")
    total = int(given.sum() + truth.sum())
    return precision, recall, 2 * hits / total if total else float("nan")


def quality(genuine: Flags, p: Matrix, groups: Texts, folds: Rows, seed: int = 0) -> dict[str, Any]:
    """AUC, F1, Brier score and calibration error (ten bins of equal mass) of p_genuine.

    The threshold of F1 is chosen on the other folds. `recall_at_75` is the share of genuine turns above the threshold
    that gives precision .75 on the other folds, and `precision_at_75` what it gave here.
    """
    from sklearn.metrics import roc_auc_score

    chosen, pure = np.zeros(len(p), dtype=np.bool_), np.zeros(len(p), dtype=np.bool_)
    for fold in np.unique(folds):
        here = folds == fold
        chosen[here] = p[here] >= best_threshold(genuine[~here], p[~here])
        pure[here] = p[here] >= pure_threshold(genuine[~here], p[~here], 0.75)

    def figures(rows: Rows) -> list[float]:
        y, q = genuine[rows], p[rows]
        auc = float(roc_auc_score(y, q)) if 0 < y.sum() < len(y) else float("nan")
        precision, recall, _ = prf(pure[rows], y)
        return [auc, prf(chosen[rows], y)[2], float(np.mean((q - y) ** 2)), _ece(y, q), precision, recall]

    found = with_interval(figures, groups, seed)
    return {
        "n": len(p),
        "conversations": len(np.unique(groups)),
        "genuine": round(float(genuine.mean()), 4),
        "mean_p": round(float(p.mean()), 4),
        **dict(zip(("auc", "f1", "brier", "ece", "precision_at_75", "recall_at_75"), found, strict=True)),
    }


def best_threshold(genuine: Flags, p: Matrix) -> float:
    """The threshold on p with the highest F1."""
    if not len(p):
        return 0.5
    thresholds, taken, hits = _cuts(genuine, p)
    return float(thresholds[int(np.argmax(2 * hits / (taken + genuine.sum())))])


def pure_threshold(genuine: Flags, p: Matrix, precision: float) -> float:
    """The lowest threshold on p above which at least this share is genuine; above all p where there is none."""
    thresholds, taken, hits = _cuts(genuine, p)
    enough = np.flatnonzero(hits / taken >= precision)
    return float(thresholds[enough[-1]]) if len(enough) else float("inf")


def _cuts(genuine: Flags, p: Matrix) -> tuple[Matrix, Rows, Rows]:
    """The distinct thresholds, highest first, how many turns reach each, and how many of those are genuine."""
    order = np.argsort(-p, kind="stable")
    ordered = p[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], [True] * bool(len(p))))
    return ordered[last], last + 1, np.cumsum(genuine[order], dtype=np.intp)[last]


def _ece(genuine: Flags, p: Matrix) -> float:
    bins = np.array_split(np.argsort(p, kind="stable"), 10)
    return float(sum(len(b) * abs(genuine[b].mean() - p[b].mean()) for b in bins if len(b)) / len(p))
