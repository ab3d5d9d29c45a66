"""Many texts into comparable units at once; what a unit is, `units.py` says.

Texts are joined and looked at as one array of code points. A unit is known by a 64-bit polynomial hash: prefix sums of
code × base^place give the hash of any stretch by one subtraction.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from filters.text import characters
from filters.text.characters import (
    APOSTROPHE,
    DIGIT,
    END,
    INVISIBLE,
    LATIN,
    NEWLINE,
    QUESTION,
    SPACE,
    UNSPACED,
    UNSPACED_MARK,
)
from filters.text.hashing import mix

STEM = 6
"""Characters of a word that count."""
_BLOCK = 1 << 16
"""Characters looked at in one go: what is at hand then stays in a processor's cache."""

_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)
_RUN = 2
"""Kind of what is written without spaces; of other words it is 1."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Units of k texts, m in all, in order.

    Attributes:
        unit: Hash of the stem, or of two neighbouring characters; shape (m,).
        word: Hash of the whole word; shape (m,).
        size: Characters of the word, 1 for a pair of characters; shape (m,).
        latin: Whether it begins with a Latin letter or a digit; shape (m,).
        owner: Text it stands in; shape (m,).
        upper: Whether it begins with a capital; shape (m,).
        sentence: Number of its sentence, counted over all texts; shape (m,).
        start: Where each text begins among the units, and the end; shape (k + 1,).
    """

    unit: NDArray[np.uint64]
    word: NDArray[np.uint64]
    size: NDArray[np.int32]
    latin: NDArray[np.bool_]
    upper: NDArray[np.bool_]
    owner: NDArray[np.intp]
    sentence: NDArray[np.int32]
    start: NDArray[np.intp]

    @property
    def counts(self) -> NDArray[np.intp]:
        """Units of each text, shape (k,)."""
        return np.diff(self.start)


def tokenise(texts: list[str]) -> Tokens:
    """Units of every text; texts must be NFKC, case does not matter."""
    lengths = [len(text) for text in texts]
    parts: list[tuple[Any, ...]] = []
    first = held = sentences = 0
    for last, length in enumerate(lengths):
        held += length + 1
        if held > _BLOCK or last == len(texts) - 1:
            *columns, sentence, counts, begun = _block(texts[first : last + 1], lengths[first : last + 1])
            parts.append((*columns, sentence + np.int32(sentences), counts))
            sentences += begun
            first, held = last + 1, 0
    if not parts:
        parts = [(*_block([""], [0])[:6], np.zeros(0, dtype=np.intp))]
    unit, word, size, latin, upper, sentence, counts = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.intp)
    return Tokens(unit, word, size, latin, upper, np.repeat(np.arange(len(texts)), counts), sentence, start)


def _block(texts: list[str], lengths: list[int]) -> tuple[Any, ...]:
    """Columns `unit, word, size, latin, upper, sentence`, units of each text, and sentences in all.

    Here `take` stands for indexing: in a column of whole numbers it is twice as fast.
    """
    codes = characters.codes_of("\n" + "\n".join(texts) + "\n")
    starts = np.concatenate([[1], np.array(lengths, dtype=np.intp) + 1]).cumsum()
    classes = characters.kinds(codes)
    for found in (_invisible, _inner_apostrophes):
        dropped = found(classes)
        if dropped.size:
            keep = np.ones(len(codes), dtype=np.bool_)
            keep[dropped] = False
            codes, classes = codes[keep], classes[keep]
            starts = starts - np.searchsorted(dropped, starts)
    values = characters.folded(codes)
    word = _word_kinds(classes)
    edges = np.flatnonzero((word[1:] != word[:-1]) | (word[1:] == _RUN)) + 1
    spans = np.flatnonzero(word.take(edges))  # The text ends in a line break: every stretch has an end.
    begin, end = edges.take(spans), edges.take(spans + 1)
    runs = np.flatnonzero(word.take(begin) == _RUN)
    goes_on = word[begin[runs] + 1] == _RUN
    # Each character of a run begins a pair, but the last has no partner: it counts only where it stands alone.
    partnerless = runs[~goes_on & (word[begin[runs] - 1] == _RUN)]
    size = (end - begin).astype(np.int32)
    length = end - begin
    length[runs] += goes_on
    if partnerless.size:
        begin, end, length, size = (np.delete(column, partnerless) for column in (begin, end, length, size))
    plural = (length > 3) & (values.take(end - 1) == ord("s")) & (values.take(end - 2) != ord("s"))
    stem = np.minimum(length - plural, STEM)
    upper = codes.take(begin) != values.take(begin)
    kind = classes.take(begin)
    powers, inverses = _powers(1 << len(codes).bit_length())
    sums = np.zeros(len(codes) + 1, dtype=np.uint64)
    values *= powers[: len(values)]
    np.cumsum(values, out=sums[1:])
    before, inverse = sums.take(begin), inverses.take(begin)
    unit = mix((sums.take(begin + stem) - before) * inverse)
    whole = (sums.take(begin + length) - before) * inverse
    breaks = _breaks(classes)
    return (
        *(unit, whole, size, (kind <= LATIN) | (kind == DIGIT), upper),
        _passed(begin, breaks),
        np.diff(np.searchsorted(begin, starts)),
        len(breaks) + 1,
    )


def _word_kinds(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What kind of word each character is part of, 0 for none; comparisons, since they are faster than a table."""
    word = (classes >= LATIN) & (classes <= UNSPACED_MARK)
    unspaced = (classes == UNSPACED) | (classes == UNSPACED_MARK)
    return np.asarray(word.view(np.uint8) + unspaced, dtype=np.uint8)


def _invisible(classes: NDArray[np.uint8]) -> NDArray[np.intp]:
    return np.flatnonzero(classes == INVISIBLE)


def _inner_apostrophes(classes: NDArray[np.uint8]) -> NDArray[np.intp]:
    """`don't` is one word."""
    marks = np.flatnonzero(classes[1:-1] == APOSTROPHE) + 1
    return np.asarray(marks[(_word_kinds(classes[marks - 1]) > 0) & (_word_kinds(classes[marks + 1]) > 0)])


def _breaks(classes: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Where sentences begin but the first, in no order: at a line break, after a full stop and a space or a word that
    needs no space before it."""
    ends = np.flatnonzero((classes[:-1] == END) | (classes[:-1] == QUESTION)) + 1
    follows = classes[ends]
    return np.concatenate(
        [np.flatnonzero(classes == NEWLINE), ends[(follows == SPACE) | (follows == UNSPACED)]], dtype=np.intp
    )


def _passed(places: NDArray[np.intp], marks: NDArray[np.intp]) -> NDArray[np.int32]:
    """How many of the few marks are at or before each of the places, which are in order."""
    steps = np.bincount(np.searchsorted(places, marks), minlength=len(places) + 1)
    return np.cumsum(steps[: len(places)], dtype=np.int32)


@cache
def _powers(size: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The base's powers and their inverses modulo 2^64, each of shape (size,)."""
    bases = (np.full(size, base, dtype=np.uint64) for base in (_BASE, _INVERSE))
    powers, inverses = (np.cumprod(base) for base in bases)
    return powers, inverses
