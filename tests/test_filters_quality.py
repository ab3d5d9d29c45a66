"""Figures of merit against counts by hand, and intervals of conversations."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import filters.learning.quality
from filters.learning.quality import best_threshold, prf, pure_threshold, quality, report, with_interval
from filters.resampling import clusters, resampled


def flags(text: str) -> Any:
    return np.array([char == "1" for char in text])


def test_precision_recall_and_f1_by_hand() -> None:
    assert prf(flags("1110000"), flags("1101100")) == pytest.approx((2 / 3, 1 / 2, 4 / 7))
    assert prf(flags("100"), flags("010")) == (0, 0, 0)


def test_precision_of_nothing_given_is_unknown_not_0() -> None:
    precision, recall, f1 = prf(flags("000"), flags("010"))
    assert math.isnan(precision)
    assert (recall, f1) == (0, 0)
    assert all(math.isnan(figure) for figure in prf(flags("00"), flags("00")))


GIVEN = np.array(["generic", "generic", "off_topic", "follow_up", "follow_up", "follow_up", "malformed"])
TRUTH = np.array(["generic", "off_topic", "off_topic", "follow_up", "follow_up", "generic", "generic"])
GROUPS = np.array(["a", "a", "b", "b", "c", "c", "c"])


def test_report_by_hand() -> None:
    """generic: 1 of 2 given right, of 3; off_topic 1 of 1, of 2; follow_up 2 of 3, of 2. malformed never occurs."""
    found = report(GIVEN, TRUTH, GROUPS)
    assert (found["turns"], found["conversations"], found["passed"]) == (7, 3, 3)
    each = {
        name: (entry["n"], *(entry[key][0] for key in ("precision", "recall", "f1")))
        for name, entry in found["labels"].items()
    }
    assert each == {
        "generic": (3, 0.5, 0.3333, 0.4),
        "off_topic": (2, 1.0, 0.5, 0.6667),
        "follow_up": (2, 0.6667, 1.0, 0.8),
    }
    assert found["macro_f1"][0] == pytest.approx((2 / 5 + 2 / 3 + 4 / 5) / 3, abs=1e-4)
    assert found["confusion"] == {
        "generic": {"malformed": 1, "generic": 1, "follow_up": 1},
        "off_topic": {"generic": 1, "off_topic": 1},
        "follow_up": {"follow_up": 2},
    }
    low, high = found["macro_f1"][1:]
    assert low < found["macro_f1"][0] < high


def test_one_conversation_tells_of_no_other() -> None:
    """However many turns it has, drawing conversations anew gives the same one."""
    found = report(np.tile(GIVEN, 50), np.tile(TRUTH, 50), np.full(350, "a"))
    point, low, high = found["macro_f1"]
    assert point == low == high


def test_more_turns_of_the_same_conversations_narrow_no_interval() -> None:
    def mean_of(values: Any) -> Any:
        return lambda rows: [float(values[rows].mean())]

    rng = np.random.default_rng(0)
    values, groups = rng.normal(size=30), np.arange(30).astype(str)
    ((_, low, high),) = with_interval(mean_of(values), groups)
    ((_, again_low, again_high),) = with_interval(mean_of(np.repeat(values, 20)), np.repeat(groups, 20))
    assert (again_low, again_high) == (low, high)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(30), rel=0.25)
    ((_, low, high),) = with_interval(mean_of(np.repeat(values, 20)), np.arange(600).astype(str))
    assert high - low < 0.4 * (again_high - again_low)


def test_a_figure_that_no_draw_has_is_nan_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = with_interval(lambda rows: [math.nan], np.array(["a", "b"]))
    assert all(math.isnan(value) for value in found)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12), st.integers(0, 9))
def test_conversations_are_drawn_whole(groups: list[str], seed: int) -> None:
    names = np.array(groups)
    rows = resampled(clusters(names), np.random.default_rng(seed))
    drawn = 0
    for name in set(groups):
        times = {int((rows == row).sum()) for row in np.flatnonzero(names == name)}
        assert len(times) == 1, "all its rows as often"
        drawn += times.pop()
    assert drawn == len(set(groups))


def test_thresholds_by_hand() -> None:
    p, genuine = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), flags("110100")
    assert pure_threshold(genuine, p, 1.0) == 0.8
    assert pure_threshold(genuine, p, 0.75) == 0.6
    assert pure_threshold(genuine, p, 0.5) == 0.4
    assert pure_threshold(flags("010000"), p, 0.9) == math.inf
    assert best_threshold(genuine, p) == 0.6
    assert best_threshold(flags(""), np.array([])) == 0.5
    assert pure_threshold(flags(""), np.array([]), 0.5) == math.inf


scored = st.lists(st.tuples(st.booleans(), st.integers(0, 4).map(lambda x: x / 4)), min_size=1, max_size=12)


@settings(max_examples=200)
@given(scored, st.sampled_from([0.5, 0.75, 0.9, 1.0]))
def test_thresholds_keep_what_they_promise_with_ties_too(turns: list[tuple[bool, float]], wanted: float) -> None:
    genuine, p = np.array([turn[0] for turn in turns]), np.array([turn[1] for turn in turns])
    shares = {t: genuine[p >= t].mean() for t in set(p)}
    enough = [t for t, share in shares.items() if share >= wanted]
    assert pure_threshold(genuine, p, wanted) == min(enough, default=math.inf)
    if genuine.any():
        f1 = {t: prf(p >= t, genuine)[2] for t in set(p)}
        assert f1[best_threshold(genuine, p)] == pytest.approx(max(f1.values()))


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters.learning.quality, "DRAWS", 10)


@pytest.mark.usefixtures("few_draws")
def test_quality_by_hand() -> None:
    """Two folds that hold the same turns, so that the thresholds chosen on the other fold are those of this one."""
    p = np.tile([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], 2)
    genuine = np.tile(flags("110100"), 2)
    groups, folds = np.repeat(["a", "b"], 6), np.repeat([0, 1], 6)
    found = quality(genuine, p, groups, folds)
    assert (found["n"], found["conversations"], found["genuine"], found["mean_p"]) == (12, 2, 0.5, 0.65)
    assert found["auc"][0] == pytest.approx(8 / 9, abs=1e-4)
    assert found["f1"][0] == pytest.approx(6 / 7, abs=1e-4)
    assert found["brier"][0] == pytest.approx((0.01 + 0.04 + 0.49 + 0.16 + 0.25 + 0.16) / 6, abs=1e-4)
    assert found["precision_at_75"][0] == 0.75
    assert found["recall_at_75"][0] == 1.0
    assert found["auc"][1] == found["auc"][2], "two conversations alike"


@pytest.mark.usefixtures("few_draws")
def test_thresholds_come_from_the_other_folds() -> None:
    """In one fold p is 0.3 higher: the best threshold of each is perfect at home, abroad it takes three or none."""
    p = np.array([0.9, 0.8, 0.5, 0.4, 0.6, 0.5, 0.2, 0.1])
    found = quality(np.tile(flags("1100"), 2), p, np.array(list("abcdefgh")), np.repeat([0, 1], 4))
    assert found["f1"][0] == pytest.approx(2 * 2 / (3 + 4), abs=1e-4)


@pytest.mark.usefixtures("few_draws")
def test_calibration_error_by_hand() -> None:
    """Ten bins of ten turns, each with p = 0.5; all genuine in five of them, none in the others."""
    p = np.full(100, 0.5) + np.arange(100) * 1e-6
    groups, folds = np.arange(100).astype(str), np.arange(100) % 5
    assert quality(np.arange(100) < 50, p, groups, folds)["ece"][0] == pytest.approx(0.5, abs=1e-3)
    assert quality(np.arange(100) % 2 == 0, p, groups, folds)["ece"][0] == pytest.approx(0, abs=1e-3)
