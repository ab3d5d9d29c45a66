"""Learned scores, trees and calibration: plain numbers that say what the libraries that fitted them say."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from filters.boosted import LEAF, Boosted, Tree
from filters.calibration import Calibration, log_odds, sigmoid
from filters.features import FEATURES, Features
from filters.labels import LABELS, Label
from filters.learning.learn import TREES, WRITTEN, Judged, fit_scores, fit_trees
from filters.scores import Scores, score_name, softmax, views

NAN = float("nan")


def features(**columns: Any) -> Features:
    values = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    return Features(values, np.ones(len(next(iter(values.values()))), dtype=bool))


def some_scores(*inputs: str, seed: int = 0) -> Scores:
    rng, k = np.random.default_rng(seed), len(inputs)
    return Scores(
        inputs,
        low=(-2.0,) * k,
        high=(5.0,) * k,
        center=tuple(rng.normal(size=3 * k)),
        weights=tuple(tuple(row) for row in rng.normal(size=(len(LABELS), 3 * k))),
        intercepts=tuple(rng.normal(size=len(LABELS))),
    )


def judged(n: int = 600, seed: int = 0) -> Judged:
    """Turns whose label hangs on two features of real names, half of them sampled."""
    rng = np.random.default_rng(seed)
    columns = {name: rng.normal(size=n) for name, feature in FEATURES.items() if feature.tier == "text"}
    told = columns["chars"] + columns["new"] * 2 + rng.normal(size=n)
    labels = np.where(told > 1, "follow_up", np.where(columns["lines"] > 0, "off_topic", "generic"))
    sources = np.where(np.arange(n) % 2 == 0, WRITTEN, "model")
    groups = np.array([f"c{row % 40}" for row in range(n)])
    return Judged(features(**columns), labels, sources, groups, np.arange(n) % 40 % 5)


values = st.lists(st.floats(-1e6, 1e6) | st.just(NAN), min_size=1, max_size=8)


@settings(max_examples=50, deadline=None)
@given(values, st.integers(0, 5))
def test_probabilities_of_the_labels_sum_to_one(column: list[float], seed: int) -> None:
    given_features = features(chars=column, lines=column[::-1])
    p = some_scores("chars", "lines", seed=seed).probabilities(given_features)
    assert p.shape == (len(column), 9)
    assert (p >= 0).all()
    assert p.sum(axis=1) == pytest.approx(np.ones(len(column)))


def test_softmax_of_huge_numbers_does_not_overflow() -> None:
    assert softmax(np.array([[1e4, 0.0], [-1e4, -1e4]])).tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_contributions_add_up_to_the_difference_of_the_log_odds() -> None:
    """Against a turn that has the mean of every view, and against the mean of the other labels."""
    scores = some_scores("chars", "lines", "new")
    given_features = features(chars=[3, 0.5, NAN], lines=[1, -1, 4], new=[0, 99, -99])
    logits = np.log(scores.probabilities(given_features))
    average = np.array(scores.weights) @ np.array(scores.center) + np.array(scores.intercepts)
    for row in range(3):
        for column, label in enumerate(LABELS):
            found = scores.contributions(given_features, row, label)
            others = [other for other in range(9) if other != column]
            here, mean = (line[column] - line[others].mean() for line in (logits[row], average))
            assert sum(adds for _, _, adds in found) == pytest.approx(here - mean)
            assert sorted((abs(adds) for _, _, adds in found), reverse=True) == [abs(adds) for _, _, adds in found]
    (chars,) = (value for name, value, _ in scores.contributions(given_features, 1, "generic") if name == "chars")
    assert chars == 0.5


def test_an_unknown_value_counts_as_zero_and_nothing_is_extrapolated() -> None:
    scores = some_scores("chars")
    p = scores.probabilities(features(chars=[NAN, 0.0, 5.0, 5e9, -2.0, -5e9]))
    assert p[0].tolist() == p[1].tolist()
    assert p[2].tolist() == p[3].tolist()
    assert p[4].tolist() == p[5].tolist()
    assert p[1].tolist() != p[2].tolist()


def test_three_views_of_a_feature() -> None:
    low, high = np.array([-1.0]), np.array([np.e - 1])
    assert views(np.array([[np.e - 1], [0.0], [-9.0], [NAN]]), low, high) == pytest.approx(
        np.array([[np.e - 1, 1.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -np.log(2), 0.0], [0.0, 0.0, 0.0]])
    )


def test_known_are_the_rows_with_all_signals() -> None:
    given_features = features(chars=[1, NAN, 1, 1], role_ratio=[0.1, 0.1, NAN, np.inf])
    assert some_scores("chars", "role_ratio").known(given_features).tolist() == [True, True, False, False]
    assert some_scores("chars").known(given_features).tolist() == [True] * 4


def test_scores_survive_json() -> None:
    scores = some_scores("chars", "lines")
    written = json.loads(json.dumps(scores.to_json()))
    again = Scores.from_json(written, "here")
    assert again.to_json() == written
    given_features = features(chars=[1, 2.5], lines=[0, 3])
    assert again.probabilities(given_features) == pytest.approx(scores.probabilities(given_features), abs=1e-4)


def test_learned_scores_say_what_the_regression_says() -> None:
    """The weights are for plain views; the model was fitted on standardised ones."""
    turns = judged()
    scores = fit_scores(turns, 1.0, 0.03)
    assert "control" not in scores.inputs, "a control token must never raise p_genuine"
    p = scores.probabilities(turns.features)
    present = ["follow_up", "generic", "off_topic"]
    assert p[:, [LABELS.index(label) for label in present]].sum(axis=1) == pytest.approx(np.ones(600), abs=1e-6)
    assert (np.array(LABELS)[p.argmax(axis=1)] == turns.labels).mean() > 0.8
    design = scores.design(turns.features)
    assert design.mean(axis=0) == pytest.approx(np.array(scores.center))
    scaled = (design - design.mean(axis=0)) / design.std(axis=0)
    shares = {label: (turns.labels == label).mean() for label in present}
    weights = np.array([(1 / (3 * shares[label])) ** 0.3 for label in turns.labels])
    model = LogisticRegression(C=0.03, max_iter=300, tol=1e-3).fit(scaled, turns.labels, sample_weight=weights)
    assert p[:, [LABELS.index(label) for label in model.classes_]] == pytest.approx(
        model.predict_proba(scaled), abs=1e-6
    )


def test_scores_of_two_labels_alone() -> None:
    """The regression then has one row of weights for both."""
    turns = judged()
    two = replace(turns, labels=np.where(turns.genuine, "follow_up", "off_topic"))
    p = fit_scores(two, 1.0, 0.03).probabilities(two.features)
    own = p[np.arange(600), [LABELS.index(label) for label in two.labels]]
    assert p[:, [LABELS.index("follow_up"), LABELS.index("off_topic")]].sum(axis=1) == pytest.approx(np.ones(600))
    assert (own > 0.5).mean() > 0.8


TREE = Tree((0, LEAF, 1, LEAF, LEAF), (4.5, 0.0, 2.5, 0.0, 0.0), (1, 0, 3, 0, 0), (2, 0, 4, 0, 0), (0, -1, 0, 2, 4))


def test_a_tree_by_hand() -> None:
    """At most the threshold goes left."""
    trees = Boosted(("chars", "lines"), (TREE, TREE))
    given_features = features(lines=[9, 2.5, 2.6, 2.6, NAN], chars=[4.5, 4.6, 4.6, NAN, 9])
    assert trees.log_odds(given_features).tolist() == [-2, 4, 8, -2, 4]
    assert trees.log_odds(given_features.take(np.array([], dtype=np.intp))).tolist() == []


def test_trees_survive_json() -> None:
    trees = Boosted(("chars", "lines"), (TREE, Tree((LEAF,), (0.0,), (0,), (0,), (0.5,))))
    written = json.loads(json.dumps(trees.to_json()))
    assert written["trees"][1] == [[0.5]]
    assert Boosted.from_json(written, "here") == trees


def test_learned_trees_say_what_scikit_learn_says_up_to_the_constant() -> None:
    turns = judged()
    turns.features.values["second_person"][::7] = NAN
    trees = fit_trees(turns)
    sampled = turns.take(np.flatnonzero(turns.sampled))
    columns = np.nan_to_num(turns.features.matrix(trees.inputs), nan=0.0)
    inside = np.nan_to_num(sampled.features.matrix(trees.inputs), nan=0.0)
    model = GradientBoostingClassifier(**TREES, random_state=0).fit(inside, sampled.genuine)
    apart = model.decision_function(columns) - trees.log_odds(turns.features)
    assert np.ptp(apart) < 1e-5, "scikit-learn compares in float32, so a value close to a threshold may fall aside"
    share = sampled.genuine.mean()
    assert apart.mean() == pytest.approx(np.log(share / (1 - share)))
    again = Boosted.from_json(json.loads(json.dumps(trees.to_json())), "here")
    assert again.log_odds(turns.features) == pytest.approx(trees.log_odds(turns.features), abs=150 * 1e-5)


CALIBRATION = Calibration((0.5, 2.0, -1.0), ((0.5, 2.0, -1.0), (0.0, 0.0, 0.0)), {"sampled": {"n": 3}})


def test_calibration_weighs_both_log_odds() -> None:
    odds = np.array([[2.0, 0.0], [0.0, 0.5], [4.0, 1.0]])
    assert CALIBRATION.probability(odds) == pytest.approx(1 / (1 + np.exp(-np.array([0.0, 0.0, 3.0]))))
    replicated = CALIBRATION.replicated(odds)
    assert replicated.shape == (2, 3)
    assert replicated[0] == pytest.approx(CALIBRATION.probability(odds))
    assert replicated[1].tolist() == [0.5] * 3


def test_calibration_survives_json() -> None:
    assert Calibration.from_json(json.loads(json.dumps(CALIBRATION.to_json())), "here") == CALIBRATION


@given(st.floats(-700, 700), st.floats(-700, 700))
def test_log_odds_and_sigmoid_are_inverse_bounded_and_ascend(a: float, b: float) -> None:
    low, high = sorted((a, b))
    p = sigmoid(np.array([low, high]))
    assert 0 <= p[0] <= p[1] <= 1
    if abs(a) < 15:
        assert log_odds(sigmoid(np.array([a])))[0] == pytest.approx(a, abs=1e-6)
    assert np.isfinite(log_odds(np.array([0.0, 1.0]))).all()


def test_every_label_has_a_score_that_rules_may_test() -> None:
    assert [score_name(label) for label in LABELS] == [f"score_{label.value}" for label in Label]
    assert {name for name, feature in FEATURES.items() if feature.tier == "score"} == {
        *(f"score_{label}" for label in LABELS),
        "p_genuine",
    }
