"""The probe: what it reads, where it is silent, and that what it earns was held out."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from filters import RulesError, estimate_genuine, label
from filters.calibration import Calibration
from filters.explain import probed
from filters.features import FEATURES, Features, compute
from filters.labelling import decide
from filters.learning import calibrate, fit_probe, learn, quality
from filters.learning.learn import FOLDS, Judged, learn_set
from filters.probe import Probe
from filters.rules import Rules, RuleSet, load, parse
from tests.test_filters_rules import JUNK, SMALL, features, paths, set_at

NAN = float("nan")
PROBE = {"layer": 7, "weights": [1.0, -0.5], "intercept": 0.25, "low": -4, "high": 3}


def with_probe() -> dict[str, Any]:
    """A rules file whose larger set has every part."""
    data = copy.deepcopy(SMALL)
    full = data["sets"]["full"] | {
        part: copy.deepcopy(SMALL["sets"]["text"][part]) for part in ("scores", "genuine", "boosted", "calibration")
    }
    full["scores"]["inputs"] = ["cos_answer"]
    full["calibration"]["probed"] = {"weights": [0.5, 0.5, 2, -1], "replicates": [[0.5, 0.5, 2, -1], [0, 0, 1, 0]]}
    data["sets"]["full"] = full | {"probe": dict(PROBE)}
    return data


PROBED = with_probe()
PLACE = ("sets", "full", "probe")
WEIGHED = ("sets", "full", "calibration", "probed")


def turns(*states: list[float] | None, **columns: Any) -> pl.DataFrame:
    """Rows with the signals that the larger set's rule reads."""
    n = len(states)
    return pl.DataFrame(
        {
            "query": ["Why is the sky blue?"] * n,
            "answer": ["Because air scatters blue light more than red."] * n,
            "history": [["Why is the sky blue?"]] * n,
            "turn": ["But why is it red in the evening?"] * n,
            "cos_answer": [0.5] * n,
            **columns,
        }
    ).with_columns(pl.Series("turn_state", states, pl.List(pl.Float32)))


def test_log_odds_by_hand() -> None:
    states = np.array([[1, 2], [NAN, NAN], [10, 0], [0, 100]], dtype=np.float32)
    here = replace(features(chars=[1.0] * 4), states=states)
    probe = Probe(7, (1.0, -0.5), 0.25, -4, 3)
    assert probe.log_odds(here).tolist() == pytest.approx([0.25, NAN, 3, -4], nan_ok=True)
    assert np.isnan(probe.log_odds(replace(here, states=None))).tolist() == [True] * 4
    with pytest.raises(ValueError, match="`turn_state` has 3 numbers a turn, the probe of the rules reads 2"):
        probe.log_odds(replace(here, states=np.zeros((4, 3), dtype=np.float32)))


def test_states_are_read_from_lists_and_arrays() -> None:
    given = [[1.0, 2.0], None, [3.0, NAN], [5.0, 6.0]]
    expected = [[1.0, 2.0], [NAN, NAN], [NAN, NAN], [5.0, 6.0]]
    lists = turns(*given)
    arrays = lists.with_columns(pl.col("turn_state").cast(pl.Array(pl.Float32, 2)))
    doubles = lists.with_columns(pl.col("turn_state").cast(pl.List(pl.Float64)))
    empty = lists.with_columns(pl.Series("turn_state", [given[0], [], [3.0, None], given[3]], pl.List(pl.Float32)))
    for table in (lists, arrays, doubles, empty):
        states = compute(table).states
        assert states is not None
        assert states.dtype == np.float32
        np.testing.assert_array_equal(states, expected)


def test_no_state_is_known_of_a_turn_in_another_language() -> None:
    table = turns(
        [1.0], [2.0], turn=["But why is it red in the evening?", "Warum ist der Himmel abends rot und nicht blau?"]
    )
    states = compute(table).states
    assert states is not None
    assert states.tolist() == [[1.0], pytest.approx([NAN], nan_ok=True)]


@pytest.mark.parametrize(
    "column",
    [
        pl.Series("turn_state", [None, None], pl.List(pl.Float32)),
        pl.Series("turn_state", [None, None], pl.Null),
        pl.Series("turn_state", [[], []], pl.List(pl.Float32)),
    ],
)
def test_a_column_without_any_state_is_none(column: pl.Series) -> None:
    assert compute(turns([1.0], [1.0]).with_columns(column)).states is None
    assert compute(turns([1.0]).drop("turn_state")).states is None


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.Series("turn_state", [[1.0], [1.0, 2.0]]), "`turn_state` has 1 numbers in one row and 2 in another"),
        (pl.Series("turn_state", [1.0, 2.0]), "`turn_state` must be a list of numbers in each row, not Float64"),
        (pl.Series("turn_state", [["a"], ["b"]]), "`turn_state` must be a list of numbers in each row"),
    ],
)
def test_states_that_are_none_are_named(column: pl.Series, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compute(turns([1.0], [1.0]).with_columns(column))


def test_states_go_where_their_rows_go() -> None:
    states = np.array([[1, 2], [3, 4], [NAN, NAN]], dtype=np.float32)
    here = replace(features(chars=[1.0, 2.0, 3.0]), states=states)
    np.testing.assert_array_equal(here.take(np.array([2, 0])).states, states[[2, 0]])
    np.testing.assert_array_equal(here.plus({"p_genuine": np.zeros(3)}).states, states)
    assert here.only(("text", "likelihood")).states is states
    assert here.only(("text", "embedding")).states is None
    without = features(chars=[4.0])
    joined = Features.concat([without, here, without]).states
    np.testing.assert_array_equal(joined, [[NAN] * 2, *states, [NAN] * 2])
    assert Features.concat([without, without]).states is None
    with pytest.raises(ValueError, match="2 and 3 numbers a turn"):
        Features.concat([here, replace(without, states=np.zeros((1, 3), dtype=np.float32))])


def test_three_log_odds_are_weighed_where_the_third_is_known_and_two_elsewhere() -> None:
    two = Calibration((0.5, 2.0, -1.0), ((0.5, 2.0, -1.0), (0.0, 0.0, 0.0)), {})
    three = replace(two, probed=Calibration((1.0, 1.0, 3.0, 0.0), ((1.0, 1.0, 3.0, 0.0), (0.0, 0.0, 1.0, 1.0)), {}))
    odds = np.array([[2.0, 1.0, 0.5], [2.0, 1.0, NAN], [0.0, 0.0, -2.0]])
    expected = np.array([[4.5, 2.0, -6.0], [1.5, 0.0, -1.0]])
    assert three.replicated(odds) == pytest.approx(1 / (1 + np.exp(-expected)))
    assert three.probability(odds) == pytest.approx(1 / (1 + np.exp(-expected[0])))
    assert two.probability(odds).tolist() == two.probability(odds[:, :2]).tolist()
    assert three.probability(odds[:, :2]).tolist() == two.probability(odds).tolist()


def test_a_set_with_a_probe_says_of_unknown_states_what_it_says_without() -> None:
    """Of known ones too where the larger set does not decide."""
    rules = parse(PROBED)
    full = rules.sets["full"]
    assert full.calibration is not None
    plain = replace(full, probe=None, calibration=replace(full.calibration, probed=None))
    table = turns([2.0, 0.0], None, [NAN, 1.0], [-2.0, 0.0], [2.0, 0.0], cos_answer=[0.5, 0.5, 0.5, 0.5, None])
    p, q = (label(table, some)["p_genuine"] for some in (rules, Rules({**rules.sets, "full": plain})))
    assert label(table, rules)["rule_set"].to_list() == ["full"] * 4 + ["text"]
    assert p[[1, 2, 4]].to_list() == q[[1, 2, 4]].to_list()
    assert (p[0], p[3]) > (q[0], 0)
    assert p[3] < q[3]
    assert [probed(full, compute(table), row) for row in range(3)] == [2.25, None, None]
    assert probed(plain, compute(table), 0) is None


def test_the_estimate_goes_with_the_probe() -> None:
    rules = parse(PROBED)
    table = turns(*[[2.0, 0.0], None] * 20)
    found = estimate_genuine(table, rules)
    assert found.mean == pytest.approx(label(table, rules)["p_genuine"].mean())
    assert found.low <= found.mean <= found.high
    assert found.mean > estimate_genuine(table.drop("turn_state"), rules).mean


def test_a_set_with_a_probe_survives_its_file(tmp_path: Path) -> None:
    rules = parse(PROBED)
    rules.save(tmp_path / "rules.json")
    assert load(tmp_path / "rules.json") == rules
    assert rules.layer == 7
    assert parse(SMALL).layer is None
    assert Probe.from_json(Probe(7, (1 / 3,), 2e-9, -1e5, 1e5).to_json(), "here").weights == (0.333333,)


MISTAKES: list[tuple[tuple[Any, ...], Any, str]] = [
    (PLACE, None, "sets.full: probe and calibration.probed come together or not at all"),
    (WEIGHED, None, "sets.full: probe and calibration.probed come together or not at all"),
    (PLACE, 3, "sets.full.probe must be an object"),
    ((*PLACE, "layer"), 0, "sets.full.probe.layer must be the number of a layer"),
    ((*PLACE, "layer"), True, "sets.full.probe.layer must be the number of a layer"),
    ((*PLACE, "layer"), 20.5, "sets.full.probe.layer must be the number of a layer"),
    ((*PLACE, "weights"), [], "sets.full.probe.weights must be a list of numbers"),
    ((*PLACE, "weights"), {}, "sets.full.probe.weights must be a list of numbers"),
    ((*PLACE, "weights", 1), "x", "sets.full.probe.weights holds something that is not a number"),
    ((*PLACE, "intercept"), None, "sets.full.probe.intercept must be a number"),
    ((*PLACE, "low"), NAN, "sets.full.probe.low must be a number"),
    ((*PLACE, "low"), 4, "sets.full.probe.low is above high"),
    (WEIGHED, [], "sets.full.calibration.probed must be an object"),
    ((*WEIGHED, "weights"), [1, 2, 3], "sets.full.calibration.probed.weights must be a list of 4 numbers"),
    ((*WEIGHED, "replicates"), [], "sets.full.calibration.probed.replicates must be a list of weights"),
    ((*WEIGHED, "replicates", 0), [1], "sets.full.calibration.probed.replicates[0] must be a list of 4 numbers"),
    ((*WEIGHED, "replicates"), [[0, 0, 1, 0]], "sets.full.calibration.probed.replicates must be as many as without"),
]


@pytest.mark.parametrize(("path", "value", "message"), MISTAKES, ids=[m[2][10:70] for m in MISTAKES])
def test_a_mistake_gets_one_line(path: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse(set_at(PROBED, path, value))
    assert message in str(caught.value)


def test_no_probe_in_a_set_without_likelihoods() -> None:
    full = PROBED["sets"]["full"]
    parts = {"probe": full["probe"], "calibration": full["calibration"]}
    data = set_at(PROBED, ("sets", "text"), PROBED["sets"]["text"] | parts)
    with pytest.raises(RulesError, match=r"sets\.text\.probe reads the likelihood tier, which 'text' is without"):
        parse(data)


@pytest.mark.filterwarnings("ignore:overflow")
def test_whatever_stands_in_it_is_refused_in_one_line_or_works() -> None:
    rows = replace(
        features(chars=[1.0, 9.0], lines=[1.0, 2.0], control=[0.0, 0.0], cos_answer=[0.5, 0.05]),
        states=np.array([[1, 2], [NAN, NAN]], dtype=np.float32),
    )
    refused = []
    places = [
        *paths(PROBED["sets"]["full"]["probe"], *PLACE),
        *paths(PROBED["sets"]["full"]["calibration"], *WEIGHED[:3]),
    ]
    for path, value in product(places, JUNK):
        try:
            rules = parse(set_at(PROBED, path, value))
        except RulesError as error:
            refused.append(str(error))
        else:
            width = len(rules.sets["full"].probe.weights) if rules.sets["full"].probe else 2
            decide(rules, replace(rows, states=np.resize(rows.states, (2, width)).astype(np.float32)))  # type: ignore[type-var]
    assert len(refused) > 200
    assert not any("\n" in told for told in refused)


# Learning


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """The whole procedure with fewer features, trees and draws, and without rules, of which p_genuine knows nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learn, "INPUTS", dict.fromkeys(learn.INPUTS, ("chars", "new")))
        patch.setattr(learn, "TREES", {**learn.TREES, "n_estimators": 2, "max_features": None})
        patch.setattr(learn, "REPLICATES", 10)
        patch.setattr(learn, "fit_rules", lambda *_: ())
        patch.setattr(learn, "fit_scored", lambda *_: ())
        patch.setattr(quality, "DRAWS", 10)
        yield


def judged(own: float, shared: float, seed: int = 0, dimensions: int = 40) -> Judged:
    """600 turns of 100 conversations whose states tell the label.

    Args:
        own: How well, in a direction that is each conversation's own.
        shared: How well, in one that is the same for all.
    """
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(100), 6)
    n = len(groups)
    genuine = rng.random(n) < 0.4 if shared else (rng.random(100) < 0.4)[groups]
    direction = rng.normal(size=(100, dimensions))[groups]
    states = rng.normal(size=(n, dimensions)) + own * direction
    states[:, 0] += shared * genuine
    columns = {name: rng.normal(size=n) for name in FEATURES} | {"control": np.zeros(n)}
    return Judged(
        Features(columns, np.ones(n, dtype=bool), states.astype(np.float32)),
        np.where(genuine, "follow_up", "off_topic"),
        np.full(n, "model"),
        groups.astype(str),
        rng.permutation(100)[groups] % FOLDS,
    )


def aucs(learned: RuleSet) -> tuple[float, float]:
    """Held out, without the probe and with it."""
    calibration = learned.calibration
    assert calibration is not None
    assert calibration.probed is not None
    return calibration.figures["sampled"]["auc"][0], calibration.probed.figures["sampled"]["auc"][0]


def test_the_probe_says_what_the_regression_says() -> None:
    turns = judged(0, 1.0)
    states = turns.features.states
    assert states is not None
    states *= np.geomspace(1e-3, 1e3, states.shape[1], dtype=np.float32)
    states[:, 1] = 5
    rows = np.arange(300)
    probe = fit_probe.fit_probe(turns, rows, 7)
    scaler = StandardScaler().fit(states[rows].astype(float))
    model = LogisticRegression(C=0.003, max_iter=500, tol=1e-3)
    expected = model.fit(scaler.transform(states[rows]), turns.genuine[rows]).decision_function(
        scaler.transform(states)
    )
    bounds = expected[rows].min(), expected[rows].max()
    assert probe.log_odds(turns.features) == pytest.approx(np.clip(expected, *bounds), abs=1e-4)
    again = Probe.from_json(probe.to_json(), "here")
    assert again.log_odds(turns.features) == pytest.approx(probe.log_odds(turns.features), abs=1e-4)
    assert (again.layer, len(again.weights)) == (7, 40)


def test_what_a_state_tells_of_all_conversations_is_earned() -> None:
    learned = learn_set("full", judged(0, 2.0), layer=7)
    without, with_it = aucs(learned)
    assert without < 0.6
    assert with_it > 0.85
    assert learned.probe is not None
    assert learned.probe.layer == 7
    assert learned.calibration is not None
    assert learned.calibration.probed is not None
    assert len(learned.calibration.replicates) == len(learned.calibration.probed.replicates) == 10
    assert learned.calibration.probed.weights[2] > 0


def test_what_was_memorised_of_a_conversation_earns_nothing() -> None:
    turns = judged(3.0, 0, dimensions=200)
    assert aucs(learn_set("full", turns))[1] < 0.7
    by_row = replace(turns, folds=np.arange(len(turns.labels)) % FOLDS)
    assert aucs(learn_set("full", by_row))[1] > 0.9, "split by row the same turns look easy"


def test_no_probe_sees_the_fold_it_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = judged(0, 2.0)
    seen: list[frozenset[int]] = []
    real = learn.fit_probe

    def spy(given: Judged, rows: NDArray[np.intp], layer: int) -> Probe:
        seen.append(frozenset(given.folds[rows].tolist()))
        return real(given, rows, layer)

    monkeypatch.setattr(learn, "fit_probe", spy)
    fitted = learn._Fitted("full", turns)
    odds = fitted.held_out(2).odds
    assert set(seen) == {frozenset(set(range(FOLDS)) - {2, fold}) for fold in {0, 1, 3, 4}}
    probe = fitted.without(1, 2).probe
    assert probe is not None
    rows = np.flatnonzero(turns.folds == 1)
    assert odds[rows, 2].tolist() == probe.log_odds(turns.features.take(rows)).tolist()


def test_of_turns_without_states_all_stays_as_it_was() -> None:
    """Half of the turns have none: the probe learns from the others, what is learned without it is the same."""
    turns = judged(0, 2.0)
    states = turns.features.states
    assert states is not None
    half = states.copy()
    half[::2] = NAN
    some = learn_set("full", replace(turns, features=replace(turns.features, states=half)))
    none = learn_set("full", replace(turns, features=replace(turns.features, states=None)))
    assert some.calibration is not None
    assert none.probe is None
    assert some.probe is not None
    assert some.calibration.probed is not None
    assert replace(some, probe=None, calibration=replace(some.calibration, probed=None), held_out={}) == replace(
        none, held_out={}
    )
    assert some.calibration.figures["sampled"]["n"] == 600
    assert some.calibration.probed.figures["sampled"]["n"] == 300


def test_written_turns_teach_the_probe_nothing() -> None:
    turns = judged(0, 2.0)
    sources = np.where(np.arange(600) % 3 == 0, learn.WRITTEN, "model")
    lied = np.where(sources == learn.WRITTEN, "generic", turns.labels)
    probes = [
        learn._Fitted("full", replace(turns, sources=sources, labels=labels)).without().probe
        for labels in (turns.labels, lied)
    ]
    assert probes[0] is not None
    assert probes[0] == probes[1]


@pytest.mark.parametrize("kept", [slice(0, 199), "one fold"])
def test_too_few_states_teach_nothing(kept: slice | str) -> None:
    turns = judged(0, 2.0)
    states = turns.features.states
    assert states is not None
    known = np.zeros(600, dtype=bool)
    known[np.isin(turns.folds, [1, 2]) if kept == "one fold" else kept] = True
    few = np.where(known[:, None], states, np.float32(NAN))
    rows = fit_probe.rows_to_learn_from("full", replace(turns, features=replace(turns.features, states=few)))
    assert len(rows) == 0
    assert len(fit_probe.rows_to_learn_from("full", turns)) == 600
    assert len(fit_probe.rows_to_learn_from("text", turns)) == 0, "the text set has no likelihoods"


def test_bootstrap_draws_are_the_same_with_and_without_states() -> None:
    turns = judged(0, 2.0)
    odds = np.random.default_rng(1).normal(size=(600, 3)) + turns.genuine[:, None]
    found, plain = (calibrate.calibrated(turns, some, 0, 5) for some in (odds, odds[:, :2]))
    assert found.replicates == plain.replicates
    assert found.probed is not None
    assert plain.probed is None
    assert len(set(found.probed.replicates)) == 5
    members = [np.flatnonzero(turns.groups == name) for name in np.unique(turns.groups)]
    picked = np.concatenate([members[i] for i in np.random.default_rng(0).integers(100, size=100)])
    model = LogisticRegression(C=1e4).fit(odds[picked], turns.genuine[picked])
    assert found.probed.replicates[0] == pytest.approx([*model.coef_[0], model.intercept_[0]], abs=1e-6)
