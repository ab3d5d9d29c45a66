"""The word lists of `units.py` as tables of hashes."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from filters.text.hashing import Index
from filters.text.tokens import Tokens, tokenise
from filters.text.units import EMPTY_WORDS, GENERIC_WORDS, LANGUAGES

LANGUAGE_NAMES = tuple(LANGUAGES)
ENGLISH = LANGUAGE_NAMES.index("en")


@cache
def _stems(words: frozenset[str]) -> Index:
    return Index(np.unique(tokenise(sorted(words)).unit))


@cache
def _function_words() -> tuple[Index, NDArray[np.uint8]]:
    """The words of all languages, and for each whether it is in each list, shape (words, languages)."""
    listed = [tokenise(sorted(words)).word for words in LANGUAGES.values()]
    every = np.unique(np.concatenate(listed))
    return Index(every), np.column_stack([np.isin(every, words) for words in listed]).astype(np.uint8)


def empty(tokens: Tokens) -> NDArray[np.bool_]:
    """Whether a unit is a function word or courtesy, shape (m,)."""
    return _stems(EMPTY_WORDS).find(tokens.unit) >= 0


def generic(tokens: Tokens) -> NDArray[np.bool_]:
    """Whether a unit fits into a remark about anything, shape (m,)."""
    return _stems(GENERIC_WORDS).find(tokens.unit) >= 0


def function_words(tokens: Tokens) -> NDArray[np.intp]:
    """How many function words of each language a text has, shape (k, languages)."""
    index, _ = _function_words()
    found = index.find(tokens.word)
    rows = np.flatnonzero(found >= 0)
    kinds, pattern = _patterns()
    k = len(tokens.start) - 1
    counts = np.bincount(tokens.owner[rows] * len(kinds) + pattern[found[rows]], minlength=k * len(kinds))
    return np.asarray(counts.reshape(k, len(kinds)) @ kinds, dtype=np.intp)


@cache
def _patterns() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The sets of languages that words are listed for, and which of them each word has."""
    kinds, pattern = np.unique(_function_words()[1], axis=0, return_inverse=True)
    return kinds.astype(np.intp), pattern.reshape(-1)
