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
    CLASSES,
    DIGIT,
    END,
    INVISIBLE,
    LATIN,
    LETTER,
    MARK,
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
_SPACED, _RUN = 1, 2
_WORD_KIND = np.zeros(CLASSES, dtype=np.uint8)
_WORD_KIND[[LATIN, LETTER, DIGIT, MARK]] = _SPACED
_WORD_KIND[[UNSPACED, UNSPACED_MARK]] = _RUN


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
            part = _block(texts[first : last + 1], lengths[first : last + 1])
            parts.append((*part[:5], part[5] + first, part[6] + sentences))
            sentences += part[7]
            first, held = last + 1, 0
    if not parts:
        parts = [_block([""], [0])[:7]]
    unit, word, size, latin, upper, owner, sentence = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    counts = np.bincount(owner, minlength=len(texts))
    return Tokens(
        unit, word, size, latin, upper, owner, sentence, np.concatenate([[0], np.cumsum(counts)]).astype(np.intp)
    )


def _block(texts: list[str], lengths: list[int]) -> tuple[Any, ...]:
    codes = characters.codes_of("\n" + "\n".join(texts) + "\n")
    starts = np.concatenate([[1], np.array(lengths, dtype=np.intp) + 1]).cumsum()[:-1]
    classes = characters.kinds(codes)
    for found in (_invisible, _inner_apostrophes):
        dropped = found(classes)
        if dropped.size:
            keep = np.ones(len(codes), dtype=np.bool_)
            keep[dropped] = False
            codes, classes = codes[keep], classes[keep]
            starts = starts - np.searchsorted(dropped, starts)
    values = characters.folded(codes)
    word = _WORD_KIND[classes]
    edges = np.flatnonzero(word[1:] != word[:-1]) + 1
    spans = np.flatnonzero(word[edges])  # The text ends in a line break: every stretch has an end.
    begin, end = edges[spans], edges[spans + 1] if spans.size else edges[:0]
    length = end - begin
    plural = (length > 3) & (values[end - 1] == ord("s")) & (values[end - 2] != ord("s"))
    stem = np.minimum(length - plural, STEM)
    size = length.copy()
    runs = np.flatnonzero(word[begin] == _RUN)
    if runs.size:  # A run of n characters becomes its n - 1 pairs.
        repeats = np.ones(len(begin), dtype=np.intp)
        repeats[runs] = np.maximum(length[runs] - 1, 1)
        stem[runs] = length[runs] = np.minimum(length[runs], 2)
        size[runs] = 1
        place = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        begin, stem, length, size = (np.repeat(column, repeats) for column in (begin, stem, length, size))
        begin = begin + place
    upper = codes[begin] != values[begin]
    powers, inverses = _powers(1 << len(codes).bit_length())
    sums = np.zeros(len(codes) + 1, dtype=np.uint64)
    values *= powers[: len(values)]
    np.cumsum(values, out=sums[1:])
    before = sums[begin]
    unit = mix((sums[begin + stem] - before) * inverses[begin])
    whole = mix((sums[begin + length] - before) * inverses[begin])
    breaks = _breaks(classes)
    owner = np.searchsorted(starts, begin, side="right") - 1
    latin = classes[begin] <= LATIN
    latin |= classes[begin] == DIGIT
    return unit, whole, size.astype(np.int32), latin, upper, owner, breaks[begin], int(breaks[-1]) + 1


def _invisible(classes: NDArray[np.uint8]) -> NDArray[np.intp]:
    return np.flatnonzero(classes == INVISIBLE)


def _inner_apostrophes(classes: NDArray[np.uint8]) -> NDArray[np.intp]:
    """`don't` is one word."""
    marks = np.flatnonzero(classes[1:-1] == APOSTROPHE) + 1
    return np.asarray(marks[(_WORD_KIND[classes[marks - 1]] > 0) & (_WORD_KIND[classes[marks + 1]] > 0)])


def _breaks(classes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Sentences begun so far at each character: after a line break, after a full stop and a space or a word that
    needs no space before it."""
    new = classes == NEWLINE
    ends = np.flatnonzero((classes[:-1] == END) | (classes[:-1] == QUESTION))
    follows = classes[ends + 1]
    new[ends[(follows == SPACE) | (follows == UNSPACED)] + 1] = True
    return np.cumsum(new, dtype=np.int32)


@cache
def _powers(size: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The base's powers and their inverses modulo 2^64, each of shape (size,)."""
    bases = (np.full(size, base, dtype=np.uint64) for base in (_BASE, _INVERSE))
    powers, inverses = (np.cumprod(base) for base in bases)
    return powers, inverses
