"""Sentences of answers in several scripts, list items and code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.signals.sentences import sentences


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hello there. This is, e.g. a test! Really?", ["Hello there.", "This is, e.g. a test!", "Really?"]),
        ("Pi is 3.14 or so. Dr. Who knows.", ["Pi is 3.14 or so.", "Dr. Who knows."]),
        ("你好。我很好！再见？", ["你好。", "我很好！", "再见？"]),
        ("यह है। वह नहीं।", ["यह है।", "वह नहीं।"]),
        ("هل هذا؟ نعم.", ["هل هذا؟", "نعم."]),
        ("1. First\n- *second*\n## Third", ["First", "*second*", "Third"]),
        ("Run:\n```sh\nmake. it\nnow\n```\nDone.", ["Run:", "make. it\nnow", "Done."]),
        ("See:\n```\ncut at the lim", ["See:", "cut at the lim"]),
        ("***\n---", ["***\n---"]),
        ("  \n", []),
    ],
)
def test_pieces(text, pieces):
    assert sentences(text) == pieces


WORDS = st.sampled_from(["apfel", "ok3", "noël", "水水", "नमस्ते"])
BETWEEN = st.sampled_from([" ", ". ", "! ", "? ", "\n", "\n- ", "\n2. ", "。", "। ", ", ", "\n```\n"])


@given(st.lists(st.tuples(WORDS, BETWEEN), min_size=1))
def test_no_word_is_lost_and_their_order_is_kept(parts):
    text = "".join(word + between for word, between in parts)
    rest = iter("\n".join(sentences(text)).split("\n"))
    line = next(rest)
    for word, _ in parts:
        while word not in line:
            line = next(rest)
        line = line[line.index(word) + len(word) :]
