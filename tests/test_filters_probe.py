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

from filters import RulesError, label
from filters.explain import contributions, told
from filters.features import FEATURES, STATE, Features, compute
from filters.labelling import decide
from filters.labels import LABELS, Label
from filters.learning import learn, quality
from filters.learning.learn import FOLDS, Judged, learn_set
from filters.probe import Probe, layer_at_depth
from filters.rules import RuleSet, load, parse
from filters.scores import score_name, softmax
from tests.test_filters_rules import JUNK, SMALL, features, paths, set_at

NAN = float("nan")
ZEROS = [0] * len(LABELS)
PROBE = {
    "layer": 7,
    "weights": {name: [1.0, -0.5] if name == "follow_up" else [0, 0] for name in LABELS},
    "offsets": [*ZEROS[:-1], 0.25],
    "low": [-4] * len(LABELS),
    "high": [3] * len(LABELS),
}


def with_probe() -> dict[str, Any]:
    """A rules file whose larger set reads states."""
    data = copy.deepcopy(SMALL)
    full = data["sets"]["full"] | {
        part: copy.deepcopy(SMALL["sets"]["text"][part]) for part in ("scores", "genuine", "boosted", "calibration")
    }
    full["scores"]["inputs"] = ["cos_answer"]
    for part in ("scores", "genuine"):
        full[part]["probe"] = copy.deepcopy(PROBE)
    data["sets"]["full"] = full
    return data


PROBED = with_probe()
PLACE = ("sets", "full", "genuine", "probe")


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


def test_what_it_adds_by_hand() -> None:
    states = np.array([[1, 2], [NAN, NAN], [10, 0], [0, 100]], dtype=np.float32)
    here = replace(features(chars=[1.0] * 4), states=states)
    probe = Probe.from_json(PROBE, "here")
    found = probe.logits(here)
    assert found[:, -1].tolist() == [0.25, 0, 3, -4], "unknown adds nothing, and nothing is extrapolated"
    assert not found[:, :-1].any()
    assert probe.known(here).tolist() == [True, False, True, True]
    assert not probe.logits(replace(here, states=None)).any()
    assert not probe.known(replace(here, states=None)).any()
    with pytest.raises(ValueError, match="`turn_state` has 3 numbers a turn, the probe of the rules reads 2"):
        probe.logits(replace(here, states=np.zeros((4, 3), dtype=np.float32)))


def test_another_scorer_is_read_at_the_same_depth() -> None:
    assert [layer_at_depth(layers) for layers in (30, 24, 36, 2, 1)] == [20, 16, 24, 1, 1]


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
    assert here.only(("text", "state")).states is states
    assert here.only(("text", "likelihood")).states is None
    without = features(chars=[4.0])
    joined = Features.concat([without, here, without]).states
    np.testing.assert_array_equal(joined, [[NAN] * 2, *states, [NAN] * 2])
    assert Features.concat([without, without]).states is None
    with pytest.raises(ValueError, match="2 and 3 numbers a turn"):
        Features.concat([here, replace(without, states=np.zeros((1, 3), dtype=np.float32))])


def test_a_set_that_reads_states_decides_where_they_are_known() -> None:
    rules = parse(PROBED)
    full, text = rules.sets["full"], rules.sets["text"]
    assert full.tiers == {"text", "embedding", "state"}
    table = turns([2.0, 0.0], None, [NAN, 1.0], [-2.0, 0.0], [2.0, 0.0], cos_answer=[0.5, 0.5, 0.5, 0.5, None])
    found = label(table, rules)
    assert found["rule_set"].to_list() == ["full", "text", "text", "full", "text"]
    known = compute(table)
    assert full.scores is not None
    assert full.genuine is not None
    plain = [replace(scores, probe=None).probabilities(known)[0] for scores in (full.scores, full.genuine)]
    for scores, before in zip((full.scores, full.genuine), plain, strict=True):
        added = np.array([*ZEROS[:-1], 2.25])
        assert scores.probabilities(known)[0] == pytest.approx(softmax(np.log(before) + added))
    assert found["p_genuine"][0] > found["p_genuine"][3]
    assert found["p_genuine"][4] == label(table, rules, only="text")["p_genuine"][4]
    assert text.tiers == {"text"}


def test_explaining_tells_what_the_state_adds() -> None:
    full = parse(PROBED).sets["full"]
    known = compute(turns([2.0, 0.0], None))
    (found,) = [entry for entry in contributions(full, known, 0, Label.FOLLOW_UP) if entry[0] == STATE]
    assert found[2] == pytest.approx(2.25)
    assert told(found) == "hidden state of the scorer (+2.25)"
    (against,) = [entry for entry in contributions(full, known, 0, Label.GENERIC) if entry[0] == STATE]
    assert against[2] == pytest.approx(-2.25 / 8)
    assert STATE not in [entry[0] for entry in contributions(full, known, 1, Label.FOLLOW_UP)]


def test_a_set_with_probes_survives_its_file(tmp_path: Path) -> None:
    rules = parse(PROBED)
    rules.save(tmp_path / "rules.json")
    assert load(tmp_path / "rules.json") == rules
    assert rules.layer == 7
    assert parse(SMALL).layer is None


MISTAKES: list[tuple[tuple[Any, ...], Any, str]] = [
    (PLACE, 3, "sets.full.genuine.probe must be an object"),
    ((*PLACE, "layer"), 0, "sets.full.genuine.probe.layer must be the number of a layer"),
    ((*PLACE, "layer"), True, "sets.full.genuine.probe.layer must be the number of a layer"),
    ((*PLACE, "layer"), 20.5, "sets.full.genuine.probe.layer must be the number of a layer"),
    ((*PLACE, "layer"), 8, "sets.full: scores and genuine read different layers"),
    ((*PLACE, "weights"), [], "sets.full.genuine.probe.weights must have one list for each label"),
    ((*PLACE, "weights"), {}, "sets.full.genuine.probe.weights must have one list for each label"),
    ((*PLACE, "weights", "generic"), [1], "sets.full.genuine.probe.weights.generic must be a list of 2 numbers"),
    ((*PLACE, "weights", "generic", 1), "x", "probe.weights.generic holds something that is not a number"),
    ((*PLACE, "offsets"), None, "sets.full.genuine.probe.offsets must be a list of 9 numbers"),
    ((*PLACE, "low", 0), 4, "sets.full.genuine.probe.low is above high"),
]


@pytest.mark.parametrize(("path", "value", "message"), MISTAKES, ids=[m[2][10:70] for m in MISTAKES])
def test_a_mistake_gets_one_line(path: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse(set_at(PROBED, path, value))
    assert message in str(caught.value)


def test_no_probe_in_a_set_without_states() -> None:
    text = PROBED["sets"]["text"]
    data = set_at(PROBED, ("sets", "text"), text | {"genuine": text["genuine"] | {"probe": dict(PROBE)}})
    with pytest.raises(RulesError, match=r"sets\.text\.scores reads a tier which 'text' is without"):
        parse(data)


@pytest.mark.filterwarnings("ignore:overflow")
def test_whatever_stands_in_it_is_refused_in_one_line_or_works() -> None:
    rows = replace(
        features(chars=[1.0, 9.0], lines=[1.0, 2.0], control=[0.0, 0.0], cos_answer=[0.5, 0.05]),
        states=np.array([[1, 2], [NAN, NAN]], dtype=np.float32),
    )
    refused = []
    for path, value in product(paths(PROBED["sets"]["full"]["genuine"]["probe"], *PLACE), JUNK):
        try:
            rules = parse(set_at(PROBED, path, value))
        except RulesError as error:
            refused.append(str(error))
        else:
            decide(rules, rows)
    assert len(refused) > 200
    assert not any("\n" in told for told in refused)


# Learning


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """The whole procedure with fewer features, trees and draws, and without rules, of which p_genuine knows nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learn, "INPUTS", {"text": ("chars", "new")})
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
        READ,
        7,
    )


READ = ("text", "embedding", "state")


def auc(learned: RuleSet) -> float:
    assert learned.calibration is not None
    return float(learned.calibration.figures["sampled"]["auc"][0])


def test_what_a_state_tells_of_all_conversations_is_earned() -> None:
    turns = judged(0, 2.0)
    learned = learn_set("full", turns)
    assert auc(learned) > 0.85
    assert auc(learn_set("full", replace(turns, tiers=("text",)))) < 0.6
    for scores in (learned.scores, learned.genuine):
        assert scores is not None
        assert scores.probe is not None
        assert scores.probe.layer == 7
        told = np.abs(scores.probe.weights[LABELS.index("follow_up")])
        assert told.argmax() == 0


def test_what_was_memorised_of_a_conversation_earns_nothing() -> None:
    turns = judged(3.0, 0, dimensions=200)
    assert auc(learn_set("full", turns)) < 0.7
    by_row = replace(turns, folds=np.arange(len(turns.labels)) % FOLDS)
    assert auc(learn_set("full", by_row)) > 0.9, "split by row the same turns look easy"


def test_units_of_a_state_do_not_matter_and_it_adds_nothing_on_average() -> None:
    turns = judged(0, 2.0)
    states = turns.features.states
    assert states is not None
    scaled = (states * np.geomspace(1e-3, 1e3, states.shape[1]) + 5).astype(np.float32)
    scaled[:, -1] = 5
    one, other = (
        learn.fit_scores(replace(turns, features=replace(turns.features, states=given)), 1.0, 0.03)
        for given in (np.where(np.arange(40) == 39, 5, states).astype(np.float32), scaled)
    )
    assert one.probe is not None
    assert other.probe is not None
    there = replace(turns.features, states=scaled)
    p = one.probabilities(replace(turns.features, states=np.where(np.arange(40) == 39, 5, states).astype(np.float32)))
    assert other.probabilities(there) == pytest.approx(p, abs=2e-3)
    assert other.probe.logits(there).mean(axis=0) == pytest.approx(np.zeros(9), abs=1e-6)


def test_where_enough_turns_have_states_likelihoods_are_left_alone() -> None:
    turns = judged(0, 2.0)
    states = turns.features.states
    assert states is not None

    def read_by(known: int) -> tuple[str, ...]:
        some = states.copy()
        some[known:] = NAN
        given = replace(turns, features=replace(turns.features, states=some))
        ((inside, _),) = learn.divided(given, np.zeros(600, dtype=bool), "full").values()
        if "state" in inside.tiers:
            assert len(inside.labels) == known
            assert np.isnan(inside.features.values["answer_pmi"]).all()
        return inside.tiers

    assert read_by(600) == READ
    assert read_by(200) == READ
    assert read_by(199) == ("text", "embedding", "likelihood")


def test_scores_of_a_set_are_those_of_its_rules() -> None:
    learned = learn_set("full", judged(0, 2.0))
    prepared = learned.prepare(judged(0, 2.0).features)
    assert learned.scores is not None
    expected = learned.scores.probabilities(prepared)[:, LABELS.index("off_topic")]
    assert prepared.values[score_name("off_topic")].tolist() == expected.tolist()
