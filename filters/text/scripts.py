"""Letters of a turn in scripts that nobody in the conversation writes."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from filters.text import characters
from filters.text.characters import LATIN, UNSPACED
from filters.text.context import Batch

_LATIN_LETTER = re.compile("[a-zA-Z]")
_HAN = 0x3040 >> 7


def foreign(batch: Batch, counts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Share of letters in scripts that the conversation has none of; shape (n,).

    Args:
        counts: Characters of each class by turn, shape (n, CLASSES).
    """
    result = np.zeros(len(batch))
    rows = _in_doubt(batch, counts)
    if not rows.size:
        return result
    pairs = np.flatnonzero(np.isin(batch.pair_row, rows))
    answers, answer_of = np.unique(batch.answer_of[rows], return_inverse=True)
    users, user_of = np.unique(batch.pair_user[pairs], return_inverse=True)
    texts = [batch.turns[row] for row in rows]
    texts += [batch.answers[number] for number in answers]
    texts += [batch.users[number] for number in users]
    own, said, asked = np.split(_tally(texts), [len(rows), len(rows) + len(answers)])
    known = said[answer_of] > 0
    np.logical_or.at(known, np.searchsorted(rows, batch.pair_row[pairs]), asked[user_of] > 0)
    result[rows] = 1 - (own * known).sum(axis=1) / own.sum(axis=1)
    return result


def _in_doubt(batch: Batch, counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """Rows that need a look: not those in ASCII nor those all in Latin letters after an answer that has some."""
    latin, letters = counts[:, LATIN], counts[:, LATIN : UNSPACED + 1].sum(axis=1)
    beyond = np.fromiter((not text.isascii() for text in batch.turns), np.bool_, len(batch))
    rows = np.flatnonzero(beyond & (letters > 0))
    spoken = [_LATIN_LETTER.search(batch.answers[number]) is not None for number in batch.answer_of[rows]]
    return np.asarray(rows[(latin != letters)[rows] | ~np.array(spoken, dtype=np.bool_)], dtype=np.intp)


def _tally(texts: list[str]) -> NDArray[np.intp]:
    """How many letters of each script that is met every text has, shape (k, scripts)."""
    codes = characters.codes_of("".join(texts))
    classes = characters.kinds(codes)
    letters = np.flatnonzero((classes >= LATIN) & (classes <= UNSPACED))
    owner = np.repeat(np.arange(len(texts)), list(map(len, texts))).take(letters)
    script = _scripts(codes.take(letters), classes.take(letters))
    met = np.bincount(script) > 0
    column = np.cumsum(met) - 1
    width = int(met.sum())
    return np.bincount(owner * width + column.take(script), minlength=len(texts) * width).reshape(len(texts), width)


def _scripts(codes: NDArray[np.uint32], classes: NDArray[np.uint8]) -> NDArray[np.intp]:
    """A coarse number for the script of each letter: the block of the character table it stands in, 0 for Latin."""
    block = (codes >> 7).astype(np.intp)
    han = (codes >= 0x3040) & (codes < 0x3100) | (codes >= 0x3400) & (codes < 0xA000) | (codes >= 0x20000)
    block[han | (codes >= 0xF900) & (codes < 0xFB00)] = _HAN  # Kana with it: Japanese mixes both.
    block[classes == LATIN] = 0
    return block
