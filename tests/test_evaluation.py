"""Figures of an evaluation against brute force and against other libraries; nothing is judged by what it taught."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from rerank.evaluation import Bootstrap, CrossValidation, assign_folds
from rerank.evaluation.bootstrap import estimate
from rerank.evaluation.curves import ALL, best_of, ndcg
from rerank.evaluation.figures import Selection, Turns, order
from rerank.evaluation.order import auc_of, midranks, spearman_of
from tests.test_rerank_weights import judged

SCORES = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=5)


def one_site(rows: list[tuple[int, bool]]) -> tuple[pl.Series, np.ndarray, np.ndarray]:
    score, value = zip(*rows, strict=True)
    return pl.Series(["s"] * len(rows)), np.array(score, float), np.array(value, float)


def brute_force(rows: list[tuple[int, bool]], n: int) -> float:
    """The mean over subsets, and over orders in which ties may fall."""
    found = []
    for drawn in combinations(range(len(rows)), min(n, len(rows))):
        for shuffled in permutations(drawn):
            found.append(rows[max(shuffled, key=lambda i: rows[i][0])][1])
    return float(np.mean(found))


@settings(max_examples=60, deadline=None)
@given(SCORES, st.integers(1, 6))
def test_best_of_n_is_the_mean_over_all_ways_to_draw(rows: list[tuple[int, bool]], n: int) -> None:
    assert best_of(*one_site(rows), (n,))[0, 0] == pytest.approx(brute_force(rows, n))


@given(SCORES)
def test_chance_is_flat_and_the_oracle_rises_above_every_score(rows: list[tuple[int, bool]]) -> None:
    sites, score, value = one_site(rows)
    ns = (1, 2, 3, ALL)
    chance, ours, oracle = (best_of(sites, by, value, ns)[0] for by in (np.zeros(len(rows)), score, value))
    assert chance == pytest.approx([value.mean()] * 4)
    assert (oracle >= ours - 1e-12).all()
    assert (np.diff(oracle) >= -1e-12).all()
    assert ours[0] == pytest.approx(value.mean())  # best of one is a random one


def test_a_site_with_fewer_candidates_gives_all_and_sites_come_sorted() -> None:
    sites = pl.Series(["b", "a", "b", "a", "a"])
    found = best_of(sites, np.array([2.0, 1, 1, 3, 2]), np.array([1.0, 0, 0, 0, 1]), (2, 100, ALL))
    assert found[1] == pytest.approx([1, 1, 1])
    assert found[0] == pytest.approx([1 / 3, 0, 0])  # of a: 3 > 2 > 1 have values 0, 1, 0


def test_an_unknown_score_is_never_selected_before_a_known_one() -> None:
    sites = pl.Series(["s", "s"])
    assert best_of(sites, np.array([np.nan, -9.0]), np.array([1.0, 0.0]), (ALL,))[0, 0] == 0


def test_many_candidates_do_not_overflow() -> None:
    found = best_of(pl.Series(["s"] * 1024), np.arange(1024.0), np.arange(1024) >= 1023.0, (1, 512, ALL))
    assert found[0] == pytest.approx([1 / 1024, 0.5, 1])


WEIGHTED = st.lists(
    st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3), st.integers(0, 3)), min_size=4, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(WEIGHTED)
def test_weights_count_as_repeated_rows(rows: list[tuple[int, bool, int, int]]) -> None:
    score, positive, grade, weight = (np.array(column) for column in zip(*rows, strict=True))
    weights = np.vstack([np.ones(len(rows)), weight]).astype(float)
    repeated = np.repeat(np.arange(len(rows)), weight)
    auc = auc_of(score.astype(float), positive.astype(bool))(weights)
    spearman = spearman_of(score.astype(float), grade.astype(float))(weights)
    for place, picked in enumerate((np.arange(len(rows)), repeated)):
        if len(np.unique(positive[picked])) == 2:
            assert auc[place] == pytest.approx(roc_auc_score(positive[picked], score[picked]))
        else:
            assert np.isnan(auc[place])
        if len(np.unique(score[picked])) > 1 and len(np.unique(grade[picked])) > 1:
            pair = pl.DataFrame({"a": score[picked], "b": grade[picked]})
            assert spearman[place] == pytest.approx(pair.select(pl.corr("a", "b", method="spearman")).item())
        else:
            assert np.isnan(spearman[place])


def test_midranks_share_ties() -> None:
    assert midranks(np.array([5.0, 1, 5]), np.ones((1, 3))).tolist() == [[2.5, 1, 2.5]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=7))
def test_ndcg_is_that_of_scikit_learn(rows: list[tuple[int, int]]) -> None:
    score, grade = (np.array(column, float) for column in zip(*rows, strict=True))
    found = ndcg(pl.Series(["s"] * len(rows)), score, grade)
    if grade.any():
        assert found[0] == pytest.approx(ndcg_score([2**grade - 1], [score]))
    else:
        assert np.isnan(found[0])


def turns(sites: int = 30, each: int = 4, seed: int = 0) -> Turns:
    rng = np.random.default_rng(seed)
    n = sites * each
    names = [f"s{i // each}" for i in range(n)]
    labels = rng.choice(["follow_up", "off_topic", "malformed"], n)
    return Turns(pl.Series(names), np.array(names), labels, np.where(labels == "follow_up", 3.0, 0.0))


def test_draws_are_of_conversations_and_the_first_is_the_data() -> None:
    bootstrap = Bootstrap(np.array(["b", "a", "b", "c"]), resamples=50)
    assert bootstrap.names.tolist() == ["a", "b", "c"]
    assert bootstrap.drawn[0].tolist() == [1, 1, 1]
    assert (bootstrap.drawn.sum(axis=1) == 3).all()
    assert (bootstrap.drawn == Bootstrap(np.array(["a", "b", "c"]), resamples=50).drawn).all()


def test_copies_of_turns_in_a_conversation_are_no_new_witnesses() -> None:
    one = turns()
    score = np.random.default_rng(1).normal(size=len(one.labels))
    rows = np.repeat(np.arange(len(score)), 5)
    many = Turns(one.sites.gather(rows), one.conversations[rows], one.labels[rows], one.grades[rows])
    for figure in ("auc", "auc_near"):
        a = order(one, score, Bootstrap(one.conversations, 300))[figure]
        b = order(many, score[rows], Bootstrap(many.conversations, 300))[figure]
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high))


def test_memory_is_bounded_without_changing_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    one, score = turns(), np.arange(120.0)
    whole = order(one, score, Bootstrap(one.conversations, 50))
    monkeypatch.setattr("rerank.evaluation.bootstrap._CELLS", 500)
    assert order(one, score, Bootstrap(one.conversations, 50)) == whole


def test_differences_are_paired() -> None:
    one = turns()
    genuine = one.genuine.astype(float)
    # The second score is the oracle's but at one site, where it picks a turn that is not genuine.
    spoilt = genuine.copy()
    spoilt[:4] = 1 - genuine[:4]
    selection = Selection(one, {"a": genuine, "b": spoilt}, (2,), Bootstrap(one.conversations, 500))
    assert selection.minus("a", "a").low == selection.minus("a", "a").high == 0
    found = selection.minus("a", "b")
    share = selection.share("a")
    assert found.value == pytest.approx(1 / 30)
    assert found.high - found.low < share.high - share.low  # unpaired, it would be wider than either
    assert selection.minus("a", "oracle").value == 0
    assert len(selection.curve("a")) == 2


def test_an_undefined_figure_is_null() -> None:
    assert estimate(np.array([np.nan, np.nan])).rounded() == [None, None, None]


def test_a_conversation_lies_in_one_fold_whatever_the_order_of_rows() -> None:
    names = pl.Series([f"c{i % 13}" for i in range(60)])
    folds = assign_folds(names, 5, 3)
    assert pl.DataFrame({"c": names, "f": folds}).unique().height == 13
    assert set(folds.unique().to_list()) == set(range(5))
    assert assign_folds(names.reverse(), 5, 3).reverse().to_list() == folds.to_list()


def test_no_turn_is_ranked_by_weights_that_saw_its_conversation() -> None:
    table = judged(30, noise=1.0)
    fold = assign_folds(table["site_id"], 5)
    mine = pl.col("site_id") == "s3"
    changed = table.with_columns(grade=pl.when(mine).then(3 - pl.col("grade")).otherwise("grade"))
    before, after = (CrossValidation(each, fold).rank() for each in (table, changed))
    columns = ["groundedness", "rank"]
    same = fold == fold.filter(table["site_id"] == "s3")[0]
    assert before.filter(same).select(columns).equals(after.filter(same).select(columns))
    assert not before.filter(~same).select(columns).equals(after.filter(~same).select(columns))


def test_without_the_signal_that_decides_selection_falls_to_chance() -> None:
    table = judged(60, noise=0.3)
    crossing = CrossValidation(table, assign_folds(table["site_id"]))
    one = Turns.of(table)
    for without, low, high in (((), 0.9, 1), (("answer_pmi",), 0, 0.5), (("cos_query",), 0.9, 1)):
        ranked = crossing.rank(without)
        score = -ranked["rank"].cast(pl.Float64).to_numpy()
        share = Selection(one, {"a": score}, (), Bootstrap(one.conversations, 0)).share("a").value
        assert low <= share <= high
    only = pl.Series([i % 2 == 0 for i in range(len(table))])
    assert crossing.rank(only=only)["turn"].to_list() == table.filter(only)["turn"].to_list()
