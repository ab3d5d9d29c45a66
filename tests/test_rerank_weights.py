"""A weights file is read whole or refused with its place named; learning gives back a calibrated, repeatable model."""

import json

import numpy as np
import polars as pl
import pytest

from rerank import WeightsError, load_weights, rank, save_weights
from rerank.evaluation import auc, cross_validate, selected_genuine
from rerank.held_out import held_out
from rerank.learn import train
from rerank.weights import TIER_SIGNALS, weights_from_json, weights_to_json

GOOD = {
    "schema_version": 1,
    "models": {"text": {"intercept": 0.5, "shapes": {"length": {"knots": [0, 1], "values": [-1, 1]}}}},
    "common_words": ["the"],
}


def changed(path, value):
    raw = json.loads(json.dumps(GOOD))
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return raw


def test_weights_survive_writing_and_reading(tmp_path):
    weights = weights_from_json(GOOD)
    save_weights(weights, str(tmp_path / "w.json"))
    assert load_weights(str(tmp_path / "w.json")) == weights


LENGTH = ("models", "text", "shapes", "length")


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ([], "one JSON object"),
        (changed(("schema_version",), 2), "schema_version is 2"),
        ({"sets": {}}, "no ranking weights as `selfplay train-ranker` writes them"),
        (changed(("models",), {}), "`text`"),
        (changed(("models", "images"), {}), "'images'"),
        (changed(("models", "text", "intercept"), "1"), "intercept: '1'"),
        (changed(("models", "text", "intercept"), float("nan")), "nan"),
        (changed(("models", "text", "intercept"), True), "True"),
        (changed(("models", "text", "shapes", "beauty"), {}), "beauty: no such signal"),
        (changed(("models", "text", "shapes", "cos_query"), {}), "cos_query: no such signal in text"),
        (changed((*LENGTH, "knots"), [1, 0]), "length: knots must ascend"),
        (changed((*LENGTH, "knots"), [0]), "as many values as knots"),
        (changed((*LENGTH, "values"), None), "length.values"),
        (changed(("common_words",), "the"), "common_words"),
        (changed(("cv",), []), "`cv`"),
    ],
)
def test_a_broken_file_is_refused_and_the_place_named(raw, named, tmp_path):
    path = tmp_path / "w.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(WeightsError, match=r"w\.json") as caught:
        load_weights(str(path))
    assert named in str(caught.value)


def test_a_missing_file_and_one_that_is_not_json_are_named(tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere\.json"):
        load_weights(str(tmp_path / "nowhere.json"))
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(WeightsError, match="not JSON"):
        load_weights(str(tmp_path / "x.json"))


def judged(sites=40, seed=0, noise=0.5):
    """Sites where `answer_pmi` decides the grade, with one genuine turn of four."""
    rng = np.random.default_rng(seed)
    rows = []
    for site in range(sites):
        for turn in range(4):
            grade = 3 if turn == site % 4 else int(rng.integers(0, 2))
            rows.append(
                {
                    "site_id": f"s{site}",
                    "turn": f"turn {rng.integers(1000)} of words",
                    "answer": "An answer.",
                    "history": ["A question?"],
                    "grade": grade,
                    "label": "follow_up" if grade == 3 else "generic",
                    "answer_pmi": grade + rng.normal(0, noise),
                    **{name: float(rng.normal()) for name in TIER_SIGNALS["likelihood"] if name != "answer_pmi"},
                }
            )
    return pl.DataFrame(rows)


def test_learning_is_calibrated_and_repeatable():
    table = judged()
    weights = train(table, penalty=0.001)
    assert set(weights.models) == {"text", "text+likelihood"}
    assert weights == train(table, penalty=0.001)
    ranked = rank(table, weights)
    assert ranked["ranked_with"].unique().to_list() == ["text+likelihood"]
    assert ranked["groundedness"].mean() == pytest.approx(table["grade"].mean() / 3, abs=0.03)
    assert (
        auc(
            ranked.filter(pl.col("grade") == 3)["groundedness"].to_numpy(),
            ranked.filter(pl.col("grade") < 3)["groundedness"].to_numpy(),
        )
        > 0.95
    )
    assert weights_from_json(json.loads(json.dumps(weights_to_json(weights)))).models.keys() == weights.models.keys()


def test_one_step_of_grade_in_a_two_valued_signal_gives_its_log_odds():
    # Questions have grade 3 in 3 of 4, others in 1 of 4: log-odds log 3 and -log 3 without a penalty.
    rows = [("a b? c", 3)] * 3 + [("a b? c", 0)] + [("a b c", 3)] + [("a b c", 0)] * 3
    table = pl.DataFrame(
        {"site_id": "s", "turn": [turn for turn, _ in rows], "grade": [grade for _, grade in rows]},
    ).with_columns(answer=pl.lit("z"), query=pl.lit("y"))
    model = train(table, penalty=1e-9).models["text"]
    assert model.shapes["question_mark"].knots == (0.0, 1.0)
    low, high = model.shapes["question_mark"].values
    assert model.intercept + low == pytest.approx(-np.log(3), abs=1e-4)
    assert model.intercept + high == pytest.approx(np.log(3), abs=1e-4)


def test_learning_takes_blank_turns_and_nulls():
    table = judged(10).with_columns(
        turn=pl.when(pl.int_range(pl.len()) % 5 == 0).then(pl.lit(" ")).otherwise("turn"),
        role_ratio=pl.lit(None, pl.Float64),
    )
    assert "text+likelihood" in train(table).models


def test_learning_without_judged_turns_says_so():
    with pytest.raises(ValueError, match="`grade`"):
        train(judged(1).drop("grade"))
    with pytest.raises(ValueError, match="no judged turns"):
        train(judged(1).clear())


def test_cross_validation_finds_the_signal_and_keeps_rows():
    table = judged(noise=1.2)
    ranked = cross_validate(table, folds=4, penalty=0.01)
    assert ranked["turn"].equals(table["turn"])
    found = selected_genuine(ranked)
    assert found["random"].value == 0.25
    assert found["oracle"].value == 1
    assert found["selected"].value > 0.6
    assert found["selected"].low < found["selected"].value < found["selected"].high
    assert found["ratio_random"].value == pytest.approx(found["selected"].value * 4)


def test_cross_validation_of_noise_finds_chance():
    table = judged(80).with_columns(answer_pmi=pl.Series(np.random.default_rng(1).normal(size=320)))
    assert selected_genuine(cross_validate(table, folds=4))["selected"].value < 0.45


def test_auc_counts_ties_half():
    assert auc(np.array([1.0, 2.0]), np.array([1.0, 0.0])) == 0.875


def test_held_out_each_set_ranks_alone_and_those_that_cannot_are_left_out():
    table = judged().with_columns(pl.lit(None, pl.Float64).alias(name) for name in TIER_SIGNALS["embedding"])
    found = held_out(table, folds=4)
    assert list(found) == ["text", "text+likelihood"]
    assert found["text+likelihood"].equals(cross_validate(table, folds=4))
    assert (
        found["text"]
        .drop(TIER_SIGNALS["likelihood"])
        .equals(cross_validate(table.drop(TIER_SIGNALS["likelihood"]), folds=4))
    )
