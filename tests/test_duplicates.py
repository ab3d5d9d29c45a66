"""Near-duplicates: what is found, what is not, and that the first in reading order stays."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.cleaning.similar import CONVERSATIONS, TURNS, Kind, Sketches, repeats, similarity, sketch

WORDS = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "rstvz"]


def text(seed: int, words: int = 120) -> list[str]:
    draw = random.Random(seed)
    return [draw.choice(WORDS) for _ in range(words)]


def changed(words: list[str], every: int) -> list[str]:
    return ["other" if place % every == 0 else word for place, word in enumerate(words)]


def found(texts: list[str], kind: Kind = CONVERSATIONS) -> list[int]:
    return repeats(sketch(texts, kind), kind).tolist()


def jaccard(left: str, right: str, run: int) -> float:
    sets = [{tuple(words[i : i + run]) for i in range(len(words) - run + 1)} for words in (left.split(), right.split())]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_near_copies_are_found_and_point_at_the_first() -> None:
    first, other = text(1), text(2)
    copies = [first, other, changed(first, 60), other, changed(first, 100)]
    assert found([" ".join(words) for words in copies]) == [-1, -1, 0, 1, 0]


def test_unlike_texts_are_no_duplicates() -> None:
    assert found([" ".join(text(seed)) for seed in range(300)]) == [-1] * 300


def test_half_alike_is_not_enough() -> None:
    words = text(3)
    assert found([" ".join(words), " ".join([*words[:60], *text(4, 60)])]) == [-1, -1]


def test_case_punctuation_and_spaces_make_no_difference() -> None:
    assert found(["Is the ferry late today, then?", "is the  FERRY late today - then"], TURNS) == [-1, 0]


@pytest.mark.parametrize("texts", [["", ""], ["…", "?!"], [" ", "\n"]])
def test_texts_without_words_repeat_nothing(texts: list[str]) -> None:
    assert found(texts) == [-1, -1]


def test_short_turns_repeat_nothing_but_short_conversations_do() -> None:
    assert found(["thanks a lot", "thanks a lot"], TURNS) == [-1, -1]
    assert found(["hi there", "hi there"]) == [-1, 0]


def test_scripts_without_spaces_are_compared_too() -> None:
    said = "从纽约到西雅图的航班在五月二十日有哪些选择请告诉我价格"
    assert found([said, said + "。", "请问如何在冬天把罗勒养在朝北的厨房窗台上需要多少光照"], TURNS) == [-1, 0, -1]


def test_what_does_not_count_is_nobodys_original() -> None:
    texts = [" ".join(text(1))] * 3
    sketches = sketch(texts, CONVERSATIONS)
    assert repeats(sketches, CONVERSATIONS, np.array([False, True, True])).tolist() == [-1, -1, 1]


def test_whoever_is_named_as_the_original_is_alike_and_stays() -> None:
    """A chain of small changes ends in something unlike its beginning; that one is kept."""
    chain = [text(5, 200)]
    for step in range(1, 40):
        chain.append([*chain[-1][: step * 5], *text(100 + step, 5), *chain[-1][step * 5 + 5 :]])
    texts = [" ".join(words) for words in chain]
    originals = found(texts)
    assert originals[1] == 0
    assert originals.count(-1) > 1
    sketches = sketch(texts, CONVERSATIONS)
    for row, original in enumerate(originals):
        if original >= 0:
            assert originals[original] == -1
            assert similarity(sketches, np.array([row]), np.array([original]))[0] >= CONVERSATIONS.threshold


@given(st.lists(st.sampled_from([" ".join(text(seed, 40)) for seed in range(6)]), max_size=20))
@settings(max_examples=50, deadline=None)
def test_equal_texts_are_always_found(texts: list[str]) -> None:
    assert found(texts) == [texts.index(each) if texts.index(each) < place else -1 for place, each in enumerate(texts)]


@given(st.lists(st.text(max_size=60), min_size=1, max_size=12), st.data())
@settings(max_examples=60, deadline=None)
def test_a_sketch_does_not_depend_on_the_texts_beside_it(texts: list[str], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(texts)))
    for kind in (CONVERSATIONS, TURNS):
        whole = sketch(texts, kind)
        parts = [sketch(part, kind) for part in (texts[:cut], texts[cut:]) if part]
        for name in ("words", "low", "bands"):
            assert (getattr(whole, name) == getattr(Sketches.concat(parts), name)).all()


def test_the_estimate_is_close_to_the_exact_similarity() -> None:
    errors = []
    for seed in range(60):
        words = text(seed, 150)
        pair = [" ".join(words), " ".join(changed(words, 3 + seed))]
        estimate = similarity(sketch(pair, CONVERSATIONS), np.array([0]), np.array([1]))[0]
        errors.append(estimate - jaccard(pair[0], pair[1], 3))
    assert abs(np.mean(errors)) < 0.02  # the standard error of one is at most .044
    assert np.abs(errors).max() < 0.18


def test_many_equal_texts_take_linear_time() -> None:
    one = sketch([" ".join(text(1))], CONVERSATIONS)
    n = 100_000
    many = Sketches(*(np.repeat(getattr(one, name), n, axis=0) for name in ("words", "low", "bands")))
    assert (repeats(many, CONVERSATIONS)[1:] == 0).all()
