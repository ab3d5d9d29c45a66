"""Picking turns that are good and unlike each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank.diversity import Worn, pick, same_text

PLAIN = "can you tell me more about that"
TURNS = st.lists(st.text("ab ?", max_size=8), min_size=1, max_size=6)


def unit(*rows: tuple[float, ...]) -> np.ndarray:
    matrix = np.array(rows, dtype=np.float32)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def test_without_diversity_the_first_k_are_picked_but_no_text_twice() -> None:
    turns = ["Why seven?", "why  seven", "Does it rain?", "And then?"]
    assert pick(turns, [0.9, 0.8, 0.7, 0.6], 3, 0.0) == [0, 2, 3]


def test_diversity_prefers_another_direction_to_a_slightly_better_repeat() -> None:
    turns, merits = ["a b", "c d", "e f"], [0.9, 0.85, 0.6]
    vectors = unit((1, 0), (1, 0.1), (0, 1))
    assert pick(turns, merits, 2, 0.0, vectors=vectors) == [0, 1]
    assert pick(turns, merits, 2, 0.4, vectors=vectors) == [0, 2]


def test_without_vectors_shared_words_make_turns_alike() -> None:
    turns = ["how long should eggs boil", "how long should the eggs boil", "do brown ones differ"]
    assert pick(turns, [0.9, 0.85, 0.6], 2, 0.4) == [0, 2]


def test_what_earlier_sites_said_is_avoided_only_when_asked() -> None:
    worn = Worn()
    for _ in range(20):
        worn.add(PLAIN)
    turns = [PLAIN, "does seven minutes hold at altitude"]
    assert pick(turns, [0.6, 0.5], 1, 0.0, worn=worn) == [0]
    assert pick(turns, [0.6, 0.5], 1, 0.3, worn=worn) == [1]


def test_wear_is_nothing_at_first_and_grows_with_use_in_steady_proportion() -> None:
    worn = Worn()
    assert worn.redundancy(PLAIN) == 0
    worn.add(PLAIN)
    assert worn.redundancy(PLAIN) == pytest.approx(1)
    for i in range(99):
        worn.add(f"x{i} y{i} z{i}")
    rare = worn.redundancy(PLAIN)
    assert 0 < rare < 0.3
    for _ in range(50):
        worn.add(PLAIN)
    assert rare < worn.redundancy(PLAIN) < 1
    assert worn.redundancy("nothing of this was said") == 0


def test_wear_of_turns_too_short_for_a_pair() -> None:
    worn = Worn()
    for turn in ("", "ok", "..."):
        worn.add(turn)
        assert 0 <= worn.redundancy(turn) <= 1
    assert worn.redundancy("ok") > 0


@settings(deadline=None)
@given(TURNS, st.data(), st.integers(1, 4), st.floats(0, 1), st.booleans())
def test_as_many_as_there_are_texts_each_once_and_the_same_again(
    turns: list[str], data: st.DataObject, k: int, diversity: float, wear: bool
) -> None:
    merits = data.draw(st.lists(st.floats(0, 1), min_size=len(turns), max_size=len(turns)))
    merits.sort(reverse=True)
    worn = Worn() if wear else None
    if worn is not None:
        worn.add(turns[-1])
    picked = pick(turns, merits, k, diversity, worn=worn)
    assert len(picked) == min(k, len({same_text(turn) for turn in turns}))
    assert len({same_text(turns[place]) for place in picked}) == len(picked)
    assert picked == pick(turns, merits, k, diversity, worn=worn)
    if not diversity:
        assert picked[0] == 0
        assert picked == sorted(picked)
