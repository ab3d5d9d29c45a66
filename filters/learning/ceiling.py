"""The ceiling: what boosted trees, which nobody can read, reach on the features that the rules read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from filters.features import FEATURES
from filters.labels import LABELS, Label
from filters.learning.quality import quality, report

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from filters.learning.learn import Judged

    Matrix = NDArray[np.float64]

TREES = {"max_iter": 80, "learning_rate": 0.1, "max_leaf_nodes": 15, "min_samples_leaf": 10, "l2_regularization": 1.0}


def inputs(tiers: tuple[str, ...]) -> tuple[str, ...]:
    """All features of these tiers. A hidden state is none: trees would make little of its hundreds of numbers."""
    return tuple(feature.name for feature in FEATURES.values() if feature.tier in tiers)


def boosted(columns: Matrix, labels: NDArray[np.str_], rarity: float, seed: int = 0) -> Any:
    """A fitted multi-class classifier with `predict_proba` and `classes_`.

    Args:
        columns: Shape (n, k).
        rarity: A turn of a label counts (1 / its share) to this power.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.feature_selection import VarianceThreshold
    from sklearn.pipeline import Pipeline

    names, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights = (len(labels) / (len(names) * counts[index])) ** rarity
    trees = HistGradientBoostingClassifier(**TREES, early_stopping=False, random_state=seed)
    # With weights, the trees' binning fails on a column that never changes.
    model = Pipeline([("varied", VarianceThreshold()), ("trees", trees)])
    return model.fit(columns, labels, trees__sample_weight=weights)


def held_out(judged: Judged, seed: int = 0) -> Matrix:
    """Probability of each label for every turn, by a model that saw none of its fold; shape (n, 9)."""
    from threadpoolctl import threadpool_limits

    from filters.learning.learn import RARE

    # Unknown counts as 0, as in our scores. A missing finish_reason would tell trees that somebody wrote the turn.
    columns = np.nan_to_num(judged.features.matrix(inputs(judged.tiers)), nan=0.0)
    found = np.zeros((len(judged.labels), len(LABELS)))
    with threadpool_limits(1):
        for fold in np.unique(judged.folds):
            here = judged.folds == fold
            model = boosted(columns[~here], judged.labels[~here], RARE, seed)
            found[np.ix_(here, [LABELS.index(label) for label in model.classes_])] = model.predict_proba(columns[here])
    return found


def ceiling(judged: Judged, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Cross-validated figures of the boosted model, in the folds that the rules are cross-validated in.

    Args:
        judged: The turns that the set is learned from.

    Returns:
        For `sampled` and `written`, where there are such turns: `report` as for rules (labels, macro-F1, confusion)
        and `quality` as for p_genuine (AUC, F1, calibration error).
    """
    p = held_out(judged, seed)
    given = np.array(LABELS)[p.argmax(axis=1)]
    genuine = p[:, LABELS.index(Label.FOLLOW_UP.value)]
    return {
        where: {
            "report": report(given[rows], judged.labels[rows], judged.groups[rows], seed),
            "quality": quality(judged.genuine[rows], genuine[rows], judged.groups[rows], judged.folds[rows], seed),
        }
        for where, rows in (("sampled", judged.sampled), ("written", ~judged.sampled))
        if rows.any()
    }
