"""Learning: what is reported was held out by conversation, and no accident of the table changes the result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from filters.certify import kept_apart, lower_bound
from filters.features import FEATURES, Features
from filters.labels import LABELS
from filters.learning import learn, quality
from filters.learning.learn import FOLDS, WRITTEN, Judged, learn_set, read, train
from filters.rules import Rules, RuleSet, load

INPUTS = ("chars", "new", "answer_only", "query_cover", "question", "content")


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """The whole procedure with fewer features, trees and draws, so that it takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learn, "INPUTS", {"text": INPUTS, "likelihood": learn.INPUTS["likelihood"][-4:]})
        patch.setattr(learn, "TREES", {**learn.TREES, "n_estimators": 20, "max_features": None})
        patch.setattr(learn, "REPLICATES", 10)
        patch.setattr(quality, "DRAWS", 10)
        yield


def table(conversations: int = 40, seed: int = 0) -> pl.DataFrame:
    """Five sampled turns and three written ones in each conversation, of four labels."""
    rng = np.random.default_rng(seed)
    words = ["lamp", "soil", "leaf", "water", "light", "stem", "flower", "root", "seed", "pot", "window", "winter"]
    others = ["poem", "capital", "train", "budget", "guitar", "planet", "senator", "recipe", "novel", "engine"]
    rows = []
    for conversation in range(conversations):
        own = rng.permutation(words)
        query = f"How do I keep my {own[0]} and {own[1]} alive, number {conversation}?"
        answer = f"Mind the {own[2]} and the {own[3]}, then move the {own[4]} to the {own[5]} for {conversation} days."
        for number in range(8):
            said = {
                "follow_up": f"why the {own[2 + number % 4]}, does {number} {own[6]} not hurt the {own[4]}?",
                "off_topic": f"Write about the {' and the '.join(rng.choice(others, 3))}, {number} of each",
                "prompt_restatement": query[: -1 - number],
                "degenerate": "ok " * (number % 3) + "thanks",
            }
            label = str(rng.choice(list(said)))
            turn = said[label if rng.random() < 0.85 else str(rng.choice(list(said)))]
            rows.append((query, answer, [query], turn, label, "model" if number < 5 else WRITTEN, f"c{conversation}"))
    schema = ["query", "answer", "history", "turn", "label", "source", "context"]
    return pl.DataFrame(rows, schema=schema, orient="row").unique(["context", "source", "turn"], maintain_order=True)


def longer(rows: pl.DataFrame) -> pl.DataFrame:
    """Enough sampled turns."""
    assert (rows["source"] != WRITTEN).sum() >= learn.LEAST_SAMPLED, "the test's own table is too small"
    return rows


SCORER = {"scorer": {"model": "s"}}


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return longer(table(60))


@pytest.fixture(scope="module")
def rules(rows: pl.DataFrame, small: None) -> Rules:
    return train(rows, SCORER)


def test_the_order_of_the_rows_changes_nothing(rows: pl.DataFrame, rules: Rules) -> None:
    assert train(rows.sample(fraction=1.0, shuffle=True, seed=1), SCORER) == rules


def test_what_is_learned_carries_its_record(rows: pl.DataFrame, rules: Rules) -> None:
    assert list(rules.sets) == ["text"], "no signals, no full set"
    assert rules.models == SCORER
    training = rules.training
    assert (training["turns"], training["conversations"], training["apart"]) == (len(rows), 60, 0)
    assert training["sources"] == {name: int((rows["source"] == name).sum()) for name in ("model", WRITTEN)}
    text = rules.sets["text"]
    assert {"control tokens", "empty or only courtesy"} <= {rule.name for rule in text.rules}
    assert all(rule.certified is None for rule in text.rules), "nothing was kept apart"
    assert text.calibration is not None
    assert len(text.calibration.replicates) == 10
    assert text.calibration.figures["sampled"]["auc"][0] > 0.8


def test_what_is_learned_survives_its_file(rules: Rules, tmp_path: Path) -> None:
    rules.save(tmp_path / "rules.json")
    again, text = load(tmp_path / "rules.json").sets["text"], rules.sets["text"]
    assert again.rules == text.rules
    assert again.held_out == json.loads(json.dumps(text.held_out))
    turns = read(table(5)).features
    prepared, read_back = text.prepare(turns), again.prepare(turns)
    assert read_back.values["p_genuine"] == pytest.approx(prepared.values["p_genuine"], abs=1e-3)


def test_what_is_proved_is_proved_on_conversations_nothing_was_learned_from() -> None:
    """Whatever the judge said of those, the same is learned from the rest; only what is proved differs."""
    rows = longer(table(80))
    apart = kept_apart(rows["context"].to_numpy().astype(str), 0.3, 0)
    lies = rows.with_columns(pl.when(pl.Series(apart)).then(pl.lit("generic")).otherwise("label").alias("label"))
    honest, lied = (train(some, apart=0.3, min_precision={"degenerate": 0.5}) for some in (rows, lies))
    assert (honest.training["conversations"], honest.training["apart"]) == (80, 24)
    told, false = honest.sets["text"], lied.sets["text"]
    assert [replace(rule, certified=None) for rule in false.rules] == [
        replace(rule, certified=None) for rule in told.rules
    ]
    assert replace(false, rules=()) == replace(told, rules=())
    proved = {rule.name: rule.certified for rule in told.rules}
    courtesy, control = proved["empty or only courtesy"], proved["control tokens"]
    assert courtesy is not None
    assert 0 < courtesy.right <= courtesy.n <= apart.sum()
    assert (courtesy.precision, courtesy.bound) == (0.5, lower_bound(courtesy.right, courtesy.n))
    assert control is not None
    assert (control.n, control.precision, control.holds) == (0, 0.9, False)
    unproved = {rule.name: rule.certified for rule in false.rules}["empty or only courtesy"]
    assert unproved is not None
    assert (unproved.n, unproved.right) == (courtesy.n, 0)


def memorised(seed: int = 0) -> Judged:
    """100 conversations whose turns all have one label, and a number that is the conversation's own.

    The number gives the label away to whoever has seen the conversation, and says nothing of any other.
    """
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(100), 6)
    n = len(groups)
    labels = np.where(rng.random(100) < 0.5, "follow_up", "off_topic")[groups]
    columns = {name: np.zeros(n) for name in FEATURES}
    columns["chars"] = rng.permutation(100)[groups] * 10.0
    folds = rng.permutation(100)[groups] % FOLDS
    sources = np.full(n, "model")
    return Judged(Features(columns, np.ones(n, dtype=bool)), labels, sources, groups.astype(str), folds)


DEEP = {"n_estimators": 10, "max_leaf_nodes": 80, "min_samples_leaf": 3, "learning_rate": 0.5}
"""Trees that can learn a hundred conversations by heart."""


def auc(learned: RuleSet) -> float:
    assert learned.calibration is not None
    return float(learned.calibration.figures["sampled"]["auc"][0])


def test_what_was_memorised_of_a_conversation_earns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "TREES", {**learn.TREES, **DEEP})
    monkeypatch.setattr(learn, "fit_scored", lambda *_: ())  # Slow, and p_genuine knows nothing of rules.
    turns = memorised()
    assert auc(learn_set("text", turns)) < 0.7
    by_row = replace(turns, folds=np.arange(len(turns.labels)) % FOLDS)
    assert auc(learn_set("text", by_row)) > 0.9, (
        "split by row the same turns look easy: that is what is guarded against"
    )


def test_a_conversation_is_in_one_fold() -> None:
    judged = read(table(30))
    folds = {group: set(judged.folds[judged.groups == group].tolist()) for group in np.unique(judged.groups)}
    assert all(len(own) == 1 for own in folds.values())
    assert {fold for own in folds.values() for fold in own} == set(range(FOLDS))


def test_no_model_sees_the_fold_it_is_asked_about(rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what each fit was given: scores are asked of turns that it did not hold."""
    judged = read(rows)
    seen = []
    real = learn.fit_scores

    def spy(inside: Judged, weight: float, strength: float) -> learn.Scores:
        seen.append(frozenset(inside.folds.tolist()))
        return real(inside, weight, strength)

    monkeypatch.setattr(learn, "fit_scores", spy)
    fitted = learn._Fitted("text", judged)
    held_out = fitted.held_out(2)
    assert np.isnan(held_out.odds).any(axis=1).tolist() == (judged.folds == 2).tolist()
    assert set(seen) == {frozenset(set(range(FOLDS)) - {2, fold}) for fold in {0, 1, 3, 4}}
    row = int(np.flatnonzero(judged.folds == 1)[0])
    without = fitted.without(1, 2).scores
    assert without is not None
    own = without.probabilities(judged.features.take(np.array([row])))[0]
    assert held_out.labels[row] == pytest.approx(own, abs=1e-12)


def test_thresholds_are_put_on_scores_of_models_that_never_saw_the_fold(
    rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules that are asked about a fold were chosen on other turns, whose scores are by models without that fold."""
    judged = read(rows)
    fitted = learn._Fitted("text", judged)
    without = {fold: fitted.held_out(fold).odds[judged.folds != fold].tolist() for fold in range(FOLDS)}
    chosen_on = []
    real = learn._assemble

    def spy(name: str, inside: Judged, learned: RuleSet, held_out: learn._Scored) -> RuleSet:
        chosen_on.append((set(range(FOLDS)) - set(inside.folds.tolist()), held_out.odds.tolist()))
        return real(name, inside, learned, held_out)

    monkeypatch.setattr(learn, "_assemble", spy)
    monkeypatch.setattr(learn, "fit_scored", lambda *_: ())
    learn_set("text", judged)
    assert chosen_on[:FOLDS] == [({fold}, odds) for fold, odds in without.items()]
    assert chosen_on[FOLDS][0] == set()


def test_precisions_are_of_held_out_turns(rows: pl.DataFrame, rules: Rules) -> None:
    (text,) = rules.sets.values()
    for source, sampled in (("sampled", True), (WRITTEN, False)):
        fired = sum(rule.precision[source].fired for rule in text.rules)
        told = text.held_out[source]
        assert told["turns"] == ((rows["source"] != WRITTEN) == sampled).sum()
        assert fired <= told["turns"] - told["passed"], "a rule found in one fold alone may be missing in the end"
        assert sum(n for row in told["confusion"].values() for n in row.values()) == told["turns"]


@pytest.mark.parametrize("column", ["label", "source", "context", "turn", "answer"])
def test_a_missing_column_is_named(column: str) -> None:
    with pytest.raises(ValueError, match=f"`{column}`"):
        train(table(5).drop(column))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", "nice", "label 'nice' is none of malformed"),
        ("source", WRITTEN, "no sampled turns"),
        ("label", "generic", "all or none are genuine"),
        ("label", "follow_up", "all or none are genuine"),
    ],
)
def test_turns_nothing_can_be_learned_from(rows: pl.DataFrame, column: str, value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(rows.with_columns(pl.lit(value).alias(column)))


def test_too_few_sampled_turns() -> None:
    with pytest.raises(ValueError, match="sampled turns; p_genuine takes 200"):
        train(table(20))


def test_exact_lower_bounds() -> None:
    """With no error the bound is the n-th root of .05; 29 hits in 29 are the fewest that prove .90."""
    assert lower_bound(0, 10) == 0
    assert lower_bound(29, 29) == pytest.approx(0.05 ** (1 / 29), abs=1e-4)
    assert lower_bound(28, 28) < 0.9 < lower_bound(29, 29)
    assert lower_bound(9, 10) == pytest.approx(0.6058, abs=1e-4)  # Clopper & Pearson 1934: root of 10p^9(1-p)+p^10=.05


def test_no_label_is_left_out_of_the_scores(rows: pl.DataFrame) -> None:
    """One that nobody gave has a score too, close to 0."""
    judged = read(rows)
    p = learn.fit_scores(judged, 1.0, 0.03).probabilities(judged.features)
    missing = [column for column, label in enumerate(LABELS) if label not in judged.labels]
    assert missing
    assert p[:, missing].max() < 1e-6
