"""The tier of hidden states: memory earns nothing, a direction that tells grades does, and files say what they read."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from rerank import Weights, WeightsError, load_weights, rank, save_weights
from rerank.evaluation import CrossValidation, assign_folds, auc, cross_validate
from rerank.explain import breakdowns
from rerank.held_out import held_out
from rerank.learn import spoken_turns, train
from rerank.learn_probe import fit_probe
from rerank.logit import fractional_logit
from rerank.probe import Probe, read_states
from rerank.weights import TIER_SETS, Model, Shape, weights_from_json, weights_to_json

PROBE = Probe((1.0, -2.0), 0.5, -3.0, 3.0, 20)
WEIGHTS = Weights(
    {
        "text": Model(0.0, {}),
        "text+state": Model(0.25, {"state_grade": Shape((-10.0, 10.0), (-10.0, 10.0))}),
        "text+likelihood": Model(0.0, {}),
    },
    probe=PROBE,
)


def judged(planted: float, conversations: int = 40, width: int = 60, seed: int = 0) -> pl.DataFrame:
    """Two sites a conversation with two turns each; grades by chance. States are `width` numbers of noise, plus
    `planted` times the grade in one direction."""
    rng = np.random.default_rng(seed)
    n = conversations * 4
    grade = rng.integers(0, 4, n)
    direction = rng.normal(size=width) / np.sqrt(width)
    states = rng.normal(size=(n, width)) + planted * grade[:, None] * direction
    return pl.DataFrame(
        {
            "context": [f"c{i // 4}" for i in range(n)],
            "site_id": [f"s{i // 2}" for i in range(n)],
            "turn": [f"turn {i} of words" for i in range(n)],
            "answer": "An answer.",
            "query": "A question?",
            "grade": grade,
            "label": np.where(grade == 3, "follow_up", "generic"),
            "turn_state": pl.Series(states.tolist(), dtype=pl.List(pl.Float32)),
        }
    )


def states_of(table: pl.DataFrame, *states: list[float] | None) -> pl.DataFrame:
    return table.with_columns(pl.Series("turn_state", states, dtype=pl.List(pl.Float32)))


def table(*turns: str, **columns: object) -> pl.DataFrame:
    return pl.DataFrame(
        {"site_id": ["s"] * len(turns), "turn": turns, "answer": "An answer.", "history": [["Q?"]] * len(turns)}
    ).with_columns(**columns)


def test_groundedness_follows_the_probe_within_its_bounds() -> None:
    given = states_of(table("a b", "c d", "e f", "g h"), [0, 0], [1, 0.5], [100, 0], [0, 100])
    ranked = rank(given, WEIGHTS)
    assert ranked["ranked_with"].unique().to_list() == ["text+state"]
    assert ranked["part_state"].to_list() == pytest.approx([0.5, 0.5, 3.0, -3.0])
    assert ranked["groundedness"][2] == pytest.approx(1 / (1 + np.exp(-3.25)))
    assert ranked["rank"].to_list()[2:] == [1, 4]
    assert "state_grade" not in ranked.columns
    assert ranked["turn_state"].equals(given["turn_state"])


@pytest.mark.parametrize("unknown", [None, [], [float("nan"), 1.0]])
def test_a_site_with_an_unknown_state_is_ranked_without(unknown: list[float] | None) -> None:
    given = states_of(table("a b", "c d", " "), [0, 0], unknown, None)
    assert rank(given, WEIGHTS)["ranked_with"].unique().to_list() == ["text"]
    blank = states_of(table("a b", "c d", " "), [0, 0], [1, 1], None)
    assert rank(blank, WEIGHTS)["ranked_with"].unique().to_list() == ["text+state"]


def test_without_states_or_without_a_probe_the_other_signals_rank() -> None:
    given = table("a b", "c d").with_columns(fluency=pl.lit(-1.0))
    assert rank(given, WEIGHTS)["ranked_with"].unique().to_list() == ["text+likelihood"]
    assert rank(given, WEIGHTS)["part_state"].null_count() == 2
    nulls = given.with_columns(turn_state=pl.lit(None))
    assert rank(nulls, WEIGHTS)["ranked_with"].unique().to_list() == ["text+likelihood"]
    old = replace(WEIGHTS, models={name: m for name, m in WEIGHTS.models.items() if "state" not in name}, probe=None)
    assert rank(states_of(given, [0, 0, 0], [1, 1, 1]), old)["ranked_with"].unique().to_list() == ["text+likelihood"]


@pytest.mark.parametrize(
    ("column", "named"),
    [
        (pl.Series([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]), "3 numbers a turn, the probe of the weights reads 2"),
        (pl.Series([[1.0, 2.0], [1.0]]), "1 numbers in one row and 2 in another"),
        (pl.Series([1.0, 2.0]), "must be a list of numbers in each row, not Float64"),
        (pl.Series([["a"], ["b"]]), "must be a list of numbers in each row"),
    ],
)
def test_states_that_the_probe_cannot_read_are_one_error(column: pl.Series, named: str) -> None:
    with pytest.raises(ValueError, match="`turn_state`") as caught:
        rank(table("a b", "c d", turn_state=column), WEIGHTS)
    assert named in str(caught.value)


def test_arrays_and_wider_numbers_are_states_as_well() -> None:
    lists = states_of(table("a b", "c d"), [0.25, 1.0], [1.0, 0.5])
    expected = rank(lists, WEIGHTS)["groundedness"].to_list()
    for dtype in (pl.Array(pl.Float32, 2), pl.List(pl.Float64)):
        assert rank(lists.with_columns(pl.col("turn_state").cast(dtype)), WEIGHTS)["groundedness"].to_list() == expected


def test_equal_turns_tie_wherever_they_stand() -> None:
    rng = np.random.default_rng(3)
    weights = replace(WEIGHTS, probe=Probe(tuple(rng.normal(size=576) / 24), 0.0, -99.0, 99.0))
    state = rng.normal(size=576).tolist()
    for n in (2, 3, 5, 9):
        found = rank(states_of(table(*["a b"] * n), *[state] * n), weights)["groundedness"].unique().to_list()
        assert found == rank(states_of(table("a b"), state), weights)["groundedness"].to_list()


def test_what_explains_adds_up_with_states() -> None:
    ranked = rank(states_of(table("a b", "c d"), [0, 0], [1, 1]), WEIGHTS)
    for found, score in zip(breakdowns(ranked, WEIGHTS), ranked["groundedness"], strict=True):
        assert 1 / (1 + np.exp(-found.log_odds)) == pytest.approx(score)
        assert [each.signal for each in found.said] == ["state_grade"]


def test_states_are_preferred_to_all_else_and_then_whatever_has_the_strongest_tier() -> None:
    places = {frozenset(name.split("+")) - {"text"}: place for place, name in enumerate(TIER_SETS)}
    assert len(places) == len(TIER_SETS) == 2**5
    for better, worse in [
        ({"state"}, {"likelihood", "embedding", "cross", "wording"}),
        ({"state", "likelihood"}, {"state", "embedding", "cross", "wording"}),
        ({"embedding"}, {"cross", "wording"}),
        ({"cross"}, {"wording"}),
        ({"wording"}, set[str]()),
    ]:
        assert places[frozenset(better)] > places[frozenset(worse)]


def auc_of_genuine(ranked: pl.DataFrame) -> float:
    genuine = ranked["label"] == "follow_up"
    score = ranked["groundedness"].to_numpy()
    return auc(score[genuine.to_numpy()], score[~genuine.to_numpy()])


def test_memorised_noise_earns_nothing() -> None:
    noise = judged(planted=0.0, width=400)
    spoken, probe = spoken_turns(noise, frozenset())
    assert probe is not None
    states = read_states(noise["turn_state"])
    assert states is not None
    grade = noise["grade"].to_numpy()
    remembered = np.corrcoef(probe.log_odds(states), grade)[0, 1]
    told = np.corrcoef(spoken["state_grade"].to_numpy(), grade)[0, 1]
    assert remembered > 0.8, "the noise is one that a probe can learn by heart"
    assert abs(told) < 0.2
    noisy, useful = (train(each).models["text+state"].shapes for each in (noise, judged(planted=1.0, width=400)))
    assert np.ptp(noisy["state_grade"].values) < 0.5 * np.ptp(useful["state_grade"].values)
    assert abs(auc_of_genuine(cross_validate(noise, folds=4)) - 0.5) < 0.1


def test_a_planted_direction_earns_and_leaving_it_out_costs_it() -> None:
    planted = judged(planted=2.0)
    found = held_out(planted, folds=4)
    assert list(found) == ["text", "text+state"]
    assert auc_of_genuine(found["text+state"]) > 0.8 > auc_of_genuine(found["text"])
    crossing = CrossValidation(planted, assign_folds(planted["context"], 4))
    assert found["text+state"].equals(crossing.rank())
    without = crossing.rank(without=["state_grade"])
    assert without["ranked_with"].unique().to_list() == ["text+state"]
    assert abs(auc_of_genuine(without) - auc_of_genuine(found["text"])) < 0.05


def test_what_a_conversation_teaches_is_not_told_of_its_own_turns() -> None:
    planted = judged(planted=0.5)
    mine = (planted["context"] == "c3").to_numpy()
    grade = planted["grade"].to_numpy() / 3
    states = read_states(planted["turn_state"])
    assert states is not None
    ones = np.ones(len(planted))
    before, told = fit_probe(states, grade, ones, planted["context"])
    after, told_after = fit_probe(states, np.where(mine, 1 - grade, grade), ones, planted["context"])
    assert told_after[mine] == pytest.approx(told[mine], abs=1e-6)
    assert told_after[~mine] != pytest.approx(told[~mine], abs=1e-3)
    assert before.weights != after.weights


def test_the_probe_is_the_same_each_time_and_the_stored_one_saw_all() -> None:
    planted = judged(planted=1.0)
    weights = train(planted, layer=20)
    assert weights == train(planted, layer=20)
    assert weights.layer == 20
    states = read_states(planted["turn_state"])
    assert states is not None
    assert weights.probe is not None
    odds = weights.probe.log_odds(states)
    assert (odds.min(), odds.max()) == pytest.approx((weights.probe.low, weights.probe.high), abs=1e-5)
    far = states * 1000
    assert set(weights.probe.log_odds(far)) <= {weights.probe.low, weights.probe.high}


def test_turns_without_states_are_learned_from_by_the_other_sets() -> None:
    planted = judged(planted=1.0).with_columns(
        turn_state=pl.when(pl.int_range(pl.len()) % 4 == 0).then(None).otherwise("turn_state")
    )
    assert set(train(planted).models) == {"text", "text+state"}
    for gone in (planted.with_columns(turn_state=pl.lit(None)), planted.with_columns(context=pl.lit("one"))):
        weights = train(gone)
        assert set(weights.models) == {"text"}
        assert weights.probe is None
        assert weights.layer is None


def test_a_column_of_that_name_in_the_table_is_not_learned_from() -> None:
    leaked = judged(planted=0.0).with_columns(state_grade=pl.col("grade").cast(pl.Float64))
    assert set(train(leaked.drop("turn_state")).models) == {"text"}
    assert train(leaked) == train(leaked.drop("state_grade"))


def test_a_probe_survives_writing_and_reading_and_old_files_have_none(tmp_path: object) -> None:
    path = f"{tmp_path}/w.json"
    save_weights(WEIGHTS, path)
    assert load_weights(path) == WEIGHTS
    raw = weights_to_json(replace(WEIGHTS, models={"text": Model(0.0, {})}, probe=None))
    assert "probe" not in raw
    assert weights_from_json(raw).probe is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weights": []}, "probe.weights is empty"),
        ({"weights": [1, "2"]}, "probe.weights: '2'"),
        ({"weights": None}, "probe.weights must be a list"),
        ({"layer": 0}, "probe.layer: 0"),
        ({"layer": True}, "probe.layer: True"),
        ({"intercept": None}, "probe.intercept: None"),
        ({"low": 4}, "probe.low is above high"),
        (None, "`probe` must be an object"),
    ],
)
def test_a_broken_probe_is_refused_and_the_place_named(change: dict[str, object] | None, named: str) -> None:
    raw = json.loads(json.dumps(weights_to_json(WEIGHTS)))
    raw["probe"] = [] if change is None else raw["probe"] | change
    with pytest.raises(WeightsError) as caught:
        weights_from_json(raw)
    assert named in str(caught.value)


def test_a_set_that_reads_states_needs_the_probe() -> None:
    raw = weights_to_json(WEIGHTS)
    del raw["probe"]
    with pytest.raises(WeightsError, match=r"models\.text\+state reads states, but there is no `probe`"):
        weights_from_json(raw)


def test_a_fractional_logit_ends_where_the_loss_is_least() -> None:
    """Wherever it starts, with more columns than the curvature is computed for: no gradient is left."""
    rng = np.random.default_rng(0)
    features, target, weight = rng.normal(size=(80, 30)), rng.uniform(size=80), rng.uniform(size=80) / 40
    for start in (None, rng.normal(size=31) * 5):
        intercept, slopes = fractional_logit(features, target, weight, 0.02, start)
        left = weight * (1 / (1 + np.exp(-intercept - features @ slopes)) - target)
        assert abs(left.sum()) < 1e-8
        assert np.abs(left @ features + 0.02 * slopes).max() < 1e-8
