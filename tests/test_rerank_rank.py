"""Ranks are a permutation, copies and flagged rows never win, ties and missing signals are settled."""

import json
import random
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import filters
from rerank import Weights, load_weights, rank
from rerank.weights import TIER_SETS, TIER_SIGNALS, Model, Shape
from selfplay.signals.sentences import sentences

JUDGED = Path(filters.__file__).parent / "judged"
ANSWER = "The panels add 240 kg to the roof, so the rafters need doubling. Ask a structural engineer first."
QUESTION = "Can I put solar panels on my old garage?"


def table(*turns, **columns):
    return pl.DataFrame(
        {
            "site_id": ["s"] * len(turns),
            "turn": list(turns),
            "answer": [ANSWER] * len(turns),
            "history": [[QUESTION]] * len(turns),
            **columns,
        }
    )


def order(ranked):
    return ranked.sort("rank")["turn"].to_list()


def slope(signal, tier_set="text", intercept=0.0):
    """Weights by which one signal alone decides: log-odds equal to it."""
    shape = {signal: Shape((-10.0, 10.0), (-10.0, 10.0))}
    return Weights({"text": Model(0.0, {}), tier_set: Model(intercept, shape)})


def test_a_reaction_to_the_answer_beats_a_generic_turn_and_an_unrelated_one():
    ranked = rank(
        table(
            "Tell me more please.",
            "Where did you get the 240 kg from? The rafters are already doubled on one side.",
            "Write a poem about cats.",
        )
    )
    assert order(ranked)[0].startswith("Where did you")


@pytest.mark.parametrize(
    "copy",
    [
        ANSWER,
        "Ask a structural engineer first.",
        "the panels add 240 kg to the roof, so the rafters need doubling",
        QUESTION,
        "can i put solar panels on my old garage??",
    ],
)
def test_a_copy_never_wins_however_well_its_signals_stand(copy):
    high = {name: [9.0, -9.0] for tier in ("embedding", "likelihood") for name in TIER_SIGNALS[tier]}
    ranked = rank(table(copy, "Why an engineer?", **high))
    assert order(ranked) == ["Why an engineer?", copy]
    assert ranked["copy"].to_list() == [True, False]
    assert ranked["groundedness"][0] <= 1 / 3


def test_a_short_echo_that_asks_is_no_copy():
    assert rank(table("240 kg?"))["copy"].to_list() == [False]


def test_copies_in_the_judged_contexts_never_beat_a_genuine_follow_up():
    contexts = {c["id"]: c for c in map(json.loads, (JUDGED / "contexts.jsonl").open())}
    rows = []
    for turn in map(json.loads, (JUDGED / "judged_turns.jsonl").open()):
        if turn["label"] == "follow_up":
            rows.append((turn["context"], turn["text"], True))
    for key in sorted({key for key, _, _ in rows}):
        messages = contexts[key]["messages"]
        answer, question = messages[-1]["content"], messages[-2]["content"]
        copies = {answer, question, max(answer.split("\n"), key=len), *sentences(answer)}
        rows += [(key, text, False) for text in sorted(copies)]
    frame = pl.DataFrame(
        {
            "site_id": [key for key, _, _ in rows],
            "turn": [text for _, text, _ in rows],
            "follow_up": [genuine for _, _, genuine in rows],
            "answer": [contexts[key]["messages"][-1]["content"] for key, _, _ in rows],
            "history": [[m["content"] for m in contexts[key]["messages"] if m["role"] == "user"] for key, _, _ in rows],
        }
    )
    flattered = pl.when("follow_up").then(-9.0).otherwise(9.0)
    signals = [name for tier, names in TIER_SIGNALS.items() if tier != "text" for name in names]
    for table_ in (frame, frame.with_columns(flattered.alias(name) for name in signals)):
        first = rank(table_).filter(pl.col("rank") == 1)
        assert first["follow_up"].all(), first.filter(~pl.col("follow_up"))["turn"].to_list()
        assert len(first) > 200


def test_flagged_rows_come_after_all_others():
    ranked = rank(table("Why 240 kg?", "ok", "Doubling the rafters how?", genuine=[False, True, None]))
    assert order(ranked)[-1] == "Why 240 kg?"


def test_p_genuine_decides_between_equally_grounded_turns():
    ranked = rank(table("Why an engineer?", "Why an engineer?", p_genuine=[0.2, 0.9]))
    assert ranked["rank"].to_list() == [2, 1]
    assert ranked["groundedness"][0] == ranked["groundedness"][1]


def test_cut_turns_are_ranked_and_marked():
    ranked = rank(table("Why an engineer?", "ok", finish_reason=["length", "stop"]))
    assert ranked["cut"].to_list() == [True, False]
    assert ranked["rank"][0] == 1


def test_ties_go_to_the_lower_sample_then_to_the_hash_whatever_the_order_of_rows():
    weights = Weights({"text": Model(0.0, {})})
    turns = ["alpha one", "beta two", "gamma three"]
    assert rank(table(*turns, sample=[2, 0, 1]), weights)["rank"].to_list() == [3, 1, 2]
    assert order(rank(table(*turns), weights)) == order(rank(table(*reversed(turns)), weights))


def test_blank_turns_are_last_with_groundedness_zero():
    ranked = rank(table("", "x", "  "))
    assert ranked["groundedness"][0] == ranked["groundedness"][2] == 0
    assert ranked["rank"][1] == 1
    assert ranked["part_text"].is_null().to_list() == [True, False, True]


def test_each_site_is_ranked_with_the_richest_tiers_that_all_its_turns_have():
    frame = pl.concat([table("a b", "c d"), table("e f", "").with_columns(site_id=pl.lit("t"))]).with_columns(
        fluency=pl.Series([-1.0, None, -2.0, None])
    )
    ranked = rank(frame, slope("fluency", "text+likelihood"))
    assert ranked["ranked_with"].to_list() == ["text", "text", "text+likelihood", "text+likelihood"]
    assert ranked["part_likelihood"].to_list() == [None, None, -2.0, None]
    assert ranked["part_embedding"].is_null().all()


def test_a_cut_turn_without_signals_holds_no_other_back():
    """A run does not measure what it will not choose."""
    signals = {name: pl.Series([1.0, None], dtype=pl.Float64) for name in TIER_SIGNALS["embedding"]}
    weights = slope("cos_answer", "text+embedding")
    cut = rank(table("Why an engineer?", "And then", finish_reason=["stop", "length"], **signals), weights)
    assert cut["ranked_with"].to_list() == ["text+embedding"] * 2
    other = rank(table("Why an engineer?", "And then", finish_reason=["stop", "stop"], **signals), weights)
    assert other["ranked_with"].to_list() == ["text"] * 2
    only = rank(table("Why an engineer?", "And then", finish_reason=["length"] * 2, **signals), weights)
    assert only["ranked_with"].to_list() == ["text+embedding"] * 2


def test_groundedness_is_the_sigmoid_of_intercept_and_parts_and_monotone_in_a_rising_shape():
    ranked = rank(table("a b", "c d", "e f", answer_pmi=[-1.0, 0.5, 2.0]), slope("answer_pmi", "text+likelihood", 0.25))
    assert ranked["groundedness"].to_list() == pytest.approx([0.320821, 0.679179, 0.904651], abs=1e-6)
    assert ranked["rank"].to_list() == [3, 2, 1]


def test_a_null_signal_adds_nothing():
    ranked = rank(
        table("a b", "c d", cos_query=[None, 1.0], cos_answer=[0.5, 0.5]), slope("cos_query", "text+embedding")
    )
    assert ranked["groundedness"][0] == 0.5


TEXTS = st.sampled_from(["", "Why 240 kg?", ANSWER, "ok", QUESTION, "rafters", "x y z"])
VALUES = st.one_of(st.none(), st.floats(-50, 50), st.just(float("nan")))
ROWS = st.lists(
    st.tuples(st.sampled_from("ab"), TEXTS, VALUES, st.one_of(st.none(), st.booleans())), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.randoms())
def test_ranks_are_a_permutation_per_site_and_do_not_hang_on_the_order_of_rows(rows, shuffler: random.Random):
    def frame(some):
        return table(
            *(row[1] for row in some),
            answer_pmi=pl.Series([row[2] for row in some], dtype=pl.Float64),
            genuine=pl.Series([row[3] for row in some], dtype=pl.Boolean),
        ).with_columns(site_id=pl.Series([row[0] for row in some]))

    ranked = rank(frame(rows))
    for _, part in ranked.group_by("site_id"):
        assert sorted(part["rank"]) == list(range(1, len(part) + 1))
        kept, flagged = part.filter(pl.col("genuine").fill_null(True)), part.filter(~pl.col("genuine").fill_null(True))
        if len(kept) and len(flagged):
            assert kept["rank"].max() < flagged["rank"].min()
    assert ranked["groundedness"].is_between(0, 1).all()
    mixed = rows[:]
    shuffler.shuffle(mixed)
    again = rank(frame(mixed))
    assert (
        again.group_by("site_id")
        .agg(pl.col("turn").sort_by("rank"))
        .sort("site_id")
        .equals(ranked.group_by("site_id").agg(pl.col("turn").sort_by("rank")).sort("site_id"))
    )


def test_an_empty_table_stays_empty():
    assert (
        len(
            rank(
                table().cast(
                    {"site_id": pl.String, "turn": pl.String, "answer": pl.String, "history": pl.List(pl.String)}
                )
            )
        )
        == 0
    )


def test_missing_columns_are_named():
    with pytest.raises(ValueError, match="`answer`"):
        rank(table("a").drop("answer"))
    with pytest.raises(ValueError, match="`history`"):
        rank(table("a").drop("history"))


def test_the_shipped_weights_know_every_tier_set():
    shipped = {"text", "wording", "embedding", "likelihood"} | ({"state"} if load_weights().probe else set())
    assert set(load_weights().models) == {name for name in TIER_SETS if set(name.split("+")) <= shipped}
    assert load_weights().measured_with["scorer"]["model"] == "smollm2-135m"
