"""Learns rules, scores and calibration from judged turns. Needs scikit-learn (`pip install 'selfplay-turns[train]'`).

What is cross-validated is split by conversation and holds the whole procedure: scores, rules and thresholds are
learned anew without each fold. Turns that were really sampled and written ones are reported apart: the latter are tidy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.boosted import LEAF, Boosted, Tree
from filters.calibration import Calibration, Weights
from filters.certify import MIN_PRECISION, certify, kept_apart
from filters.features import FEATURES, Features, compute
from filters.labels import LABELS, Label
from filters.learning.quality import quality, report
from filters.learning.search import fit_rules, fit_scored
from filters.probe import LAYER, Probe
from filters.resampling import clusters, resampled
from filters.rule import Precision, Rule
from filters.rules import Rules, RuleSet
from filters.scores import Scores, score_name, views

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]
    Flags = NDArray[np.bool_]
    Texts = NDArray[np.str_]

WRITTEN = "written"
FOLDS = 5
REPLICATES = 200
LEAST_SAMPLED = 200
"""No set is learned from fewer sampled turns."""
STRENGTH, GENUINE_STRENGTH = 0.03, 0.003
"""Inverse of the ridge penalty on the weights of the two linear scores. These and the numbers below were chosen once,
by cross-validation on the shipped turns."""
TOLERANCE = 1e-3
"""Gradient at which their fit ends."""
RARE = 0.3
"""Turns of a label count (1 / its share) to this power, so that rare labels are heard."""
SAMPLED_WEIGHT = 10.0
"""How much a sampled turn counts against a written one in the linear score for p_genuine, which is about what models
really write. To tell labels apart all count alike, since only written turns show all of them."""
TREES = {
    "n_estimators": 150,
    "learning_rate": 0.05,
    "max_leaf_nodes": 6,
    "min_samples_leaf": 20,
    "max_features": 0.3,
}

_NOT_SCORED = ("control",)
"""Text features without a weight: a control token decides by its rule, and must never raise p_genuine."""
INPUTS: dict[str, tuple[str, ...]] = {
    tier: tuple(
        feature.name for feature in FEATURES.values() if feature.tier == tier and feature.name not in _NOT_SCORED
    )
    for tier in ("text", "embedding", "likelihood")
}
"""What scores read of a tier."""
READS: dict[str, tuple[tuple[str, ...], ...]] = {
    "text": (("text",),),
    "full": (("text", "embedding", "state"), ("text", "embedding", "likelihood")),
}
"""Tiers that a set is learned from: the first choice that enough sampled turns have. A hidden state takes one pass of
the scorer and tells more than the four of the likelihoods, which beside it add next to nothing."""
STATE_SCALE = 0.5
"""Of the standardised hidden state beside the standardised features: a penalty four times theirs."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What is learned from: features and what the judge said of each turn, arrays of shape (n,).

    Attributes:
        tiers: Those that are read; every turn has them.
        layer: Of the scorer, where the hidden states were read.
    """

    features: Features
    labels: Texts
    sources: Texts
    groups: Texts
    folds: NDArray[np.intp]
    tiers: tuple[str, ...] = ("text",)
    layer: int = LAYER

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the features that scores read."""
        return tuple(name for tier in self.tiers for name in INPUTS.get(tier, ()))

    @property
    def sampled(self) -> Flags:
        return np.asarray(self.sources != WRITTEN, dtype=np.bool_)

    @property
    def genuine(self) -> Flags:
        return np.asarray(self.labels == Label.FOLLOW_UP.value, dtype=np.bool_)

    def take(self, rows: NDArray[np.intp]) -> Judged:
        """Some of the turns."""
        return replace(
            self,
            features=self.features.take(rows),
            labels=self.labels[rows],
            sources=self.sources[rows],
            groups=self.groups[rows],
            folds=self.folds[rows],
        )


def train(
    table: pl.DataFrame,
    models: Mapping[str, Any] | None = None,
    seed: int = 0,
    min_precision: float | Mapping[str, float] = MIN_PRECISION,
    apart: float = 0.0,
    only: str | None = None,
    layer: int = LAYER,
) -> Rules:
    """A rule set for every tier set whose signals the table has.

    Args:
        table: The columns that `filters.label` takes, the judge's `label`, `source` (`written`, or the generator's
            name), `context` (the conversation), and the signal columns and `turn_state` where they were measured.
        models: `scorer` and `embedder` that measured the signals; kept in the rules.
        min_precision: What a rule is to prove, for all labels or by label (`certify.MIN_PRECISION` for the others).
        apart: Share of the conversations that nothing is learned from; there rules prove their precision. With 0
            none is certified.
        only: The one set to learn.
        layer: Of the scorer, where `turn_state` was read.

    Raises:
        ValueError: A column is missing, a label is none of the rubric's, or the turns are too few.
    """
    from threadpoolctl import threadpool_limits

    judged = read(table, seed, layer)
    aside = kept_apart(judged.groups, apart, seed)
    with threadpool_limits(1):  # Many small fits: threads would only wait for each other.
        sets = {}
        for name, (inside, outside) in divided(judged, aside, only).items():
            learned = learn_set(name, inside, seed)
            sets[name] = certify(learned, outside.features, outside.labels, min_precision)
    training = {
        "sha256": _fingerprint(table),
        "turns": len(table),
        "sources": {str(source): int((judged.sources == source).sum()) for source in np.unique(judged.sources)},
        "conversations": len(np.unique(judged.groups)),
        "apart": len(np.unique(judged.groups[aside])),
        "folds": FOLDS,
    }
    return Rules(sets, training, dict(models or {}))


def divided(judged: Judged, aside: Flags, only: str | None = None) -> dict[str, tuple[Judged, Judged]]:
    """For each set that can be learned: the turns to learn from, and those kept apart, that have its signals.

    Args:
        aside: Turns kept apart, shape (n,).
        only: The one set that is wanted.

    Raises:
        ValueError: There are too few turns for any.
    """
    found, most = {}, 0
    for name, choices in READS.items():
        if only not in (None, name):
            continue
        for tiers in choices:
            seen = replace(judged, features=judged.features.only(tiers), tiers=tiers)
            rows = _have(seen)
            usable = rows & judged.sampled & ~aside
            most = max(most, int(usable.sum()))
            if usable.sum() >= LEAST_SAMPLED:
                _must_be_spread(judged, usable)
                found[name] = seen.take(np.flatnonzero(rows & ~aside)), seen.take(np.flatnonzero(rows & aside))
                break
    if not found:
        having = " that have all signals" if only == "full" else ""
        kept = f" besides the {int((judged.sampled & aside).sum())} kept apart" if aside.any() else ""
        raise ValueError(f"only {most} sampled turns{having}{kept}; p_genuine takes {LEAST_SAMPLED} to be calibrated")
    return found


def _have(judged: Judged) -> Flags:
    """Which turns have all that the tiers are made of; shape (n,)."""
    known = np.ones(len(judged.labels), dtype=np.bool_)
    for name in judged.inputs:
        if FEATURES[name].tier != "text":
            known &= np.isfinite(judged.features.values[name])
    if "state" in judged.tiers:
        states = judged.features.states
        known &= False if states is None else np.isfinite(states[:, 0])
    return known


def _must_be_spread(judged: Judged, usable: Flags) -> None:
    """Two folds at a time are left out in learning; what is left must have turns of both kinds."""
    for rows, kind in ((usable & judged.genuine, "genuine"), (usable & ~judged.genuine, "not genuine")):
        if len(np.unique(judged.folds[rows])) < 3:
            raise ValueError(
                f"{int(rows.sum())} of the {int(usable.sum())} sampled turns are {kind}, in "
                f"{len(np.unique(judged.groups[rows]))} conversations: too few to cross-validate"
            )


def read(table: pl.DataFrame, seed: int = 0, layer: int = LAYER) -> Judged:
    """The table as arrays, in an order that does not depend on the rows' own.

    Raises:
        ValueError: A column is missing, a label is none of the rubric's, no turn was sampled, or of those
            that were all or none are genuine.
    """
    for column in ("label", "source", "context", "turn"):
        if column not in table.columns:
            raise ValueError(f"judged turns need the column `{column}`")
    table = table.sort("context", "source", "turn")
    foreign = sorted({str(text) for text in table["label"]} - set(Label))
    if foreign:
        raise ValueError(f"label {foreign[0]!r} is none of {', '.join(Label)}")
    labels = np.array(table["label"].to_list())
    groups, sources = (table[name].to_numpy().astype(str) for name in ("context", "source"))
    if (sources == WRITTEN).all():
        raise ValueError("no sampled turns: every source is `written`, and those cannot calibrate p_genuine")
    if len(np.unique(labels[sources != WRITTEN] == Label.FOLLOW_UP.value)) < 2:
        raise ValueError("of the sampled turns all or none are genuine: nothing to learn p_genuine from")
    names, index = np.unique(groups, return_inverse=True)
    folds = np.random.default_rng(seed).permutation(len(names))[index] % FOLDS
    return Judged(compute(table), labels, sources, groups, np.asarray(folds, dtype=np.intp), layer=layer)


def learn_set(name: str, judged: Judged, seed: int = 0) -> RuleSet:
    """One rule set with its cross-validated figures."""
    fitted = _Fitted(name, judged)
    n = len(judged.labels)
    given, fired, p = np.empty(n, dtype="U32"), np.full(n, "", dtype=object), np.empty(n)
    for fold in range(FOLDS):
        inside, outside = np.flatnonzero(judged.folds != fold), np.flatnonzero(judged.folds == fold)
        learned = _assemble(name, judged.take(inside), fitted.without(fold), fitted.held_out(fold).take(inside))
        prepared = learned.prepare(judged.features.take(outside))
        decided = learned.decide(prepared)
        rules = [learned.rules[index] if index >= 0 else None for index in decided]
        given[outside] = [(rule.label if rule else Label.FOLLOW_UP).value for rule in rules]
        fired[outside] = [rule.name if rule else "" for rule in rules]
        p[outside] = prepared.values["p_genuine"]
    held_out = fitted.held_out()
    final = _assemble(name, judged, fitted.without(), held_out)
    return replace(
        final,
        rules=tuple(replace(rule, precision=_precisions(rule, fired, judged)) for rule in final.rules),
        calibration=replace(
            _platt(judged, held_out),
            replicates=_replicas(judged, held_out, seed),
            figures={
                where: quality(judged.genuine[rows], p[rows], judged.groups[rows], judged.folds[rows], seed)
                for where, rows in _sources(judged).items()
            },
        ),
        held_out={
            where: report(given[rows], judged.labels[rows], judged.groups[rows], seed)
            for where, rows in (("sampled", judged.sampled), (WRITTEN, ~judged.sampled))
            if rows.any()
        },
    )


@dataclass(frozen=True, slots=True)
class _Scored:
    """Held-out scores of some turns: of each label, shape (n, 9), and the log-odds for p_genuine, shape (n, 2)."""

    labels: Matrix
    odds: Matrix

    def take(self, rows: NDArray[np.intp]) -> _Scored:
        return _Scored(self.labels[rows], self.odds[rows])


class _Fitted:
    """The models learned without some folds, each fitted once."""

    def __init__(self, name: str, judged: Judged) -> None:
        self._name = name
        self._judged = judged
        self._scores: dict[frozenset[int], RuleSet] = {}

    def without(self, *folds: int) -> RuleSet:
        """A set without rules and calibration yet."""
        key = frozenset(folds)
        if key not in self._scores:
            inside = self._judged.take(np.flatnonzero(~np.isin(self._judged.folds, list(key))))
            self._scores[key] = RuleSet(
                self._name,
                (),
                fit_scores(inside, 1.0, STRENGTH),
                fit_scores(inside, SAMPLED_WEIGHT, GENUINE_STRENGTH),
                fit_trees(inside),
            )
        return self._scores[key]

    def held_out(self, *left_out: int) -> _Scored:
        """Scores of every turn by models that saw neither its fold nor those left out; NaN for the latter's turns."""
        folds = self._judged.folds
        labels, odds = np.full((len(folds), len(LABELS)), np.nan), np.full((len(folds), 2), np.nan)
        for fold in set(range(FOLDS)) - set(left_out):
            rows = np.flatnonzero(folds == fold)
            features = self._judged.features.take(rows)
            learned = self.without(fold, *left_out)
            assert learned.scores is not None  # noqa: S101
            labels[rows] = learned.scores.probabilities(features)
            odds[rows] = learned.odds(features)
        return _Scored(labels, odds)


def fit_scores(judged: Judged, sampled_weight: float, strength: float) -> Scores:
    """Ridge-penalised multinomial regression on standardised views of the features, and on the hidden state if read."""
    from sklearn.linear_model import LogisticRegression

    raw = judged.features.matrix(judged.inputs)
    low, high = (np.percentile(np.nan_to_num(raw, nan=0.0), q, axis=0) for q in (0.5, 99.5))
    design = views(raw, low, high)
    k = design.shape[1]
    if "state" in judged.tiers:
        assert judged.features.states is not None  # noqa: S101  # `divided` saw to it
        design = np.hstack([design, judged.features.states.astype(np.float64)])
    center, scale = design.mean(axis=0), design.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    scale[k:] /= STATE_SCALE
    shares = {label: float((judged.labels == label).mean()) for label in np.unique(judged.labels)}
    weights = np.array([(1 / (len(shares) * shares[label])) ** RARE for label in judged.labels])
    weights = weights * np.where(judged.sampled, sampled_weight, 1.0)
    model = LogisticRegression(C=strength, max_iter=300, tol=TOLERANCE)
    model.fit((design - center) / scale, judged.labels, sample_weight=weights)
    # A label nobody gave has no row: weights 0 and an intercept far below the others.
    slopes, intercepts = np.zeros((len(LABELS), design.shape[1])), np.full(len(LABELS), -20.0)
    coefficients, offsets = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # One row then, for the second label against the first.
        coefficients, offsets = (np.concatenate([-half, half]) for half in (coefficients / 2, offsets / 2))
    for row, label in enumerate(model.classes_):
        slopes[LABELS.index(label)] = coefficients[row] / scale
        intercepts[LABELS.index(label)] = offsets[row] - float(slopes[LABELS.index(label), :k] @ center[:k])
    return Scores(
        judged.inputs,
        _floats(low),
        _floats(high),
        _floats(center[:k]),
        tuple(map(_floats, slopes[:, :k])),
        _floats(intercepts),
        _probe(judged, slopes[:, k:], center[k:]) if "state" in judged.tiers else None,
    )


def _probe(judged: Judged, slopes: Matrix, center: Matrix) -> Probe:
    """The part of the regression that reads states."""
    assert judged.features.states is not None  # noqa: S101
    said = (judged.features.states - center) @ slopes.T
    return Probe(
        judged.layer,
        tuple(map(_floats, slopes)),
        _floats(-slopes @ center),
        _floats(said.min(axis=0)),
        _floats(said.max(axis=0)),
    )


def _floats(values: Matrix) -> tuple[float, ...]:
    return tuple(map(float, values))


def fit_trees(judged: Judged) -> Boosted:
    """Trees that tell follow-ups from all else, learned from the sampled turns."""
    from sklearn.ensemble import GradientBoostingClassifier

    rows = np.flatnonzero(judged.sampled)
    columns = np.nan_to_num(judged.features.take(rows).matrix(judged.inputs), nan=0.0)
    model = GradientBoostingClassifier(**TREES, random_state=0).fit(columns, judged.genuine[rows])
    trees = []
    for stage in model.estimators_[:, 0]:
        grown = stage.tree_
        leaf = grown.children_left < 0
        trees.append(
            Tree(
                tuple(np.where(leaf, LEAF, grown.feature).tolist()),
                tuple(np.where(leaf, 0.0, grown.threshold).tolist()),
                tuple(np.where(leaf, 0, grown.children_left).tolist()),
                tuple(np.where(leaf, 0, grown.children_right).tolist()),
                tuple((np.where(leaf, grown.value[:, 0, 0], 0.0) * TREES["learning_rate"]).tolist()),
            )
        )
    return Boosted(judged.inputs, tuple(trees))


def _assemble(name: str, judged: Judged, learned: RuleSet, held_out: _Scored) -> RuleSet:
    """Rules on features, then rules on scores; the thresholds of the latter are put on held-out scores."""
    calibration = _platt(judged, held_out)
    readable = fit_rules(judged.tiers, judged.features, judged.labels, judged.sampled)
    columns = {score_name(label): held_out.labels[:, column] for column, label in enumerate(LABELS)}
    prepared = judged.features.plus({**columns, "p_genuine": calibration.probability(held_out.odds)})
    decided = RuleSet(name, readable).decide(prepared)
    fired = np.array([readable[index].label.value if index >= 0 else "" for index in decided], dtype="U32")
    scored = fit_scored(judged.tiers, prepared, judged.labels, judged.sampled, fired)
    return replace(learned, rules=(*readable, *scored), calibration=calibration)


def _platt(judged: Judged, held_out: _Scored) -> Calibration:
    rows = np.flatnonzero(judged.sampled)
    weights = _weigh(held_out.odds[rows], judged.genuine[rows])
    return Calibration(weights, (weights,), {})


def _replicas(judged: Judged, held_out: _Scored, seed: int) -> tuple[Weights, ...]:
    """The weights on bootstrap resamples of the conversations with sampled turns."""
    rows = np.flatnonzero(judged.sampled)
    odds, genuine = held_out.odds[rows], judged.genuine[rows]
    rng = np.random.default_rng(seed)
    members = clusters(judged.groups[rows])
    drawn = (resampled(members, rng) for _ in range(REPLICATES))
    return tuple(_weigh(odds[picked], genuine[picked]) for picked in drawn)


def _weigh(odds: Matrix, genuine: Flags) -> Weights:
    from sklearn.linear_model import LogisticRegression

    if genuine.all() or not genuine.any():
        raise ValueError("of the sampled turns all or none are genuine: nothing to calibrate p_genuine on")
    model = LogisticRegression(C=1e4).fit(odds, genuine)
    linear, boosted = (float(x) for x in model.coef_[0])
    return linear, boosted, float(model.intercept_[0])


def _precisions(rule: Rule, fired: NDArray[np.object_], judged: Judged) -> dict[str, Precision]:
    found = {}
    for source, where in (("sampled", judged.sampled), (WRITTEN, ~judged.sampled)):
        caught = judged.labels[(fired == rule.name) & where]
        right, genuine = (int((caught == label).sum()) for label in (rule.label.value, Label.FOLLOW_UP.value))
        found[source] = Precision.count(len(caught), right, genuine)
    return found


def _sources(judged: Judged) -> dict[str, Flags]:
    return {
        "sampled": judged.sampled,
        **{str(source): np.asarray(judged.sources == source) for source in np.unique(judged.sources)},
    }


def _fingerprint(table: pl.DataFrame) -> str:
    """Hash of what was judged: context, source, turn, label, in sorted order."""
    digest = hashlib.sha256()
    for row in table.select("context", "source", "turn", "label").sort("context", "source", "turn").iter_rows():
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()
