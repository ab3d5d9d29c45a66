"""Figures of variety against counts made by hand, and what the closing table says of them."""

from __future__ import annotations

from math import comb

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank.variety import compare, distinct, mean, self_bleu, words
from selfplay.choosing import variety


def test_figures_of_a_small_set() -> None:
    (found,) = compare([["How long do eggs boil?", "How long?", "Thanks."]])
    assert found.turns == 3
    assert found.questions == pytest.approx(2 / 3)
    assert found.words == pytest.approx(8 / 3)
    assert found.openings == pytest.approx(2 / 3)
    assert (found.common_opening, found.common_opening_share) == ("how long", pytest.approx(2 / 3))
    assert found.distinct_1 == pytest.approx(6 / 8)
    assert found.distinct_2 == pytest.approx(4 / 5)


def test_words_of_scripts_without_spaces() -> None:
    assert words("Öl, 3kg! 鸡蛋煮") == ["öl", "3kg", "鸡", "蛋", "煮"]


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.data())
def test_distinct_is_the_mean_over_all_draws_of_that_size(frequencies: list[int], data: st.DataObject) -> None:
    total = sum(frequencies)
    size = data.draw(st.integers(1, total))
    expected = sum(1 - comb(total - f, size) / comb(total, size) for f in frequencies) / size
    assert distinct(frequencies, size) == pytest.approx(expected)
    assert distinct(frequencies, total) == pytest.approx(len(frequencies) / total)


def test_a_longer_set_of_the_same_variety_does_not_look_poorer() -> None:
    pool = [f"w{i}" for i in range(50)]
    short = [" ".join(pool[(7 * i + j * j) % 50] for j in range(6)) for i in range(40)]
    long = [" ".join(pool[(7 * i + j * j) % 50] for j in range(6)) for i in range(120)]
    few, many = compare([short, long])
    assert many.distinct_1 == pytest.approx(few.distinct_1, rel=0.05)
    (alone,) = compare([long])
    assert alone.distinct_1 < 0.5 * few.distinct_1, "the plain ratio falls with length"


def test_self_bleu_tells_sameness_from_variety() -> None:
    same = [words("how long do eggs boil")] * 4
    other = [words(text) for text in ("how long do eggs boil", "is brown rice slower", "what if mine cracked open")]
    assert self_bleu(same) == pytest.approx(1)
    assert self_bleu(other) == 0
    assert 0 < self_bleu([*other, words("how long do noodles boil")]) < 0.5
    assert self_bleu(other[:1]) == 0


def test_self_bleu_clips_by_the_most_frequent_use_in_one_other_turn() -> None:
    # "the" stands twice in the first turn and once in each of the others: one of its two uses counts.
    assert self_bleu([["the", "the"], ["the"], ["the"]]) == pytest.approx(((0.5 * 0.5) ** 0.5 + 2) / 3)


def test_mean_of_draws() -> None:
    a, b = compare([["why so?"], ["ok then."]])
    assert mean([a, b]).questions == 0.5
    with pytest.raises(ValueError, match="no set"):
        mean([])


def candidates(sites: int) -> pl.DataFrame:
    """At each site a turn that says the same everywhere, which was chosen, and two that are of that site alone."""
    rows = []
    for i in range(sites):
        for sample, turn in enumerate((f"can you tell me more about x{i}", f"a{i} b{i} c{i} d{i}?", f"e{i} f{i} g{i}")):
            rows.append((f"s{i}", turn, sample == 0, None if sample == 0 else "lower_rank"))
        rows.append((f"s{i}", "can you tell me more", False, "flagged"))
    rows.append(("barren", "zzz", False, "flagged"))
    return pl.DataFrame(rows, ["site_id", "turn", "selected", "rejected_for"], orient="row")


def test_uniform_choices_are_told_with_what_restores_variety() -> None:
    found = variety.measure(candidates(40))
    assert found["sites"] == 40
    assert found["selected"]["turns"] == found["survivor"]["turns"] == found["candidate"]["turns"] == 40
    assert found["selected"]["common_opening"] == "can you"
    assert found["selected"]["common_opening_share"] == 1
    assert found["candidate"]["common_opening_share"] > found["survivor"]["common_opening_share"] > 0.1
    assert variety.lost(found) > 0.3
    assert "--diversity 0.7 restores" in dict(variety.lines(found))["selection costs variety"]
    harder = dict(variety.lines(variety.measure(candidates(40), diversity=0.8)))
    assert "--diversity 1 restores" in harder["selection costs variety"]


def test_varied_choices_get_no_warning_and_none_no_rows() -> None:
    table = candidates(40)
    other = pl.col("turn").str.starts_with("a")
    varied = table.with_columns(selected=other, rejected_for=pl.when(~other).then(pl.lit("lower_rank")))
    shown = dict(variety.lines(variety.measure(varied)))
    assert "selection costs variety" not in shown
    assert shown["  with a question mark"].endswith("100%")
    assert variety.lines(variety.measure(table.with_columns(selected=pl.lit(False)))) == []


def test_random_turns_are_as_many_per_site_as_chosen_and_always_the_same() -> None:
    table = candidates(5).with_columns(wanted=pl.when(pl.col("site_id") == "s1").then(2).otherwise(1))
    turns = variety.drawn(table, 3)
    assert turns == variety.drawn(table, 3)
    assert turns != variety.drawn(table, 4)
    assert len(turns) == 5 + 1 + 1


def test_nothing_to_compare_is_no_share_of_nought() -> None:
    rows = {"site_id": "s", "turn": ["Why 7?", "7?"], "selected": [False, True], "rejected_for": ["flagged", None]}
    told = dict(variety.lines(variety.measure(pl.DataFrame(rows))))
    assert told["  distinct-2"].split() == ["–", "–", "–"]
    assert told["  self-BLEU, high is uniform"].split() == ["0.00", "0.00", "0.00"]
