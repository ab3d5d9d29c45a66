"""Near-duplicate texts by MinHash: sketches of a fixed size, and the earlier text that each one repeats.

Similarity is the Jaccard index of the texts' runs of words (Broder 1997). A text is known by K minima of its hashed
runs, which rensa computes; b bands of r minima each are compared first, since texts that agree in no band are hardly
alike, and of those that do the low byte of every minimum (b-bit MinHash, Li & König 2010, arXiv 0910.3349).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from filters.text.hashing import mix
from filters.text.tokens import tokenise
from filters.text.units import plain

SEED = 1
TEXT_LIMIT = 100_000
"""Characters of a text that are looked at."""
_COMPARED = 1 << 16
"""Pairs compared in one go."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Kind:
    """How texts of a kind are compared.

    Attributes:
        run: Neighbouring words that make one element of the set.
        bands, rows: Minima are compared in so many bands of so many; their product is K.
        threshold: Texts at least this similar are near-duplicates.
        least: Texts of fewer words repeat nothing.
    """

    run: int
    bands: int
    rows: int
    threshold: float
    least: int = 1

    @property
    def minima(self) -> int:
        """K."""
        return self.bands * self.rows


CONVERSATIONS = Kind(run=3, bands=16, rows=8, threshold=0.8)
"""Finds 95 % of the pairs that are .80 alike and 99.4 % of those that are .85: 1 - (1 - s^8)^16."""
TURNS = Kind(run=1, bands=12, rows=5, threshold=0.8, least=5)
"""Short texts, so single words; 99 % of the pairs that are .80 alike."""


def algorithm() -> str:
    """What sketches must have in common to be compared."""
    from rensa import RMinHash

    return f"rensa R-MinHash {RMinHash.ALGORITHM_VERSION}, seed {SEED}"


@dataclass(frozen=True, slots=True)
class Sketches:
    """Of n texts.

    Attributes:
        words: How many there are in each text; shape (n,). A run of a script without spaces counts by characters.
        low: The low byte of each minimum; shape (n, K).
        bands: A hash of each band; shape (n, bands).
    """

    words: NDArray[np.uint32]
    low: NDArray[np.uint8]
    bands: NDArray[np.uint32]

    @classmethod
    def concat(cls, parts: Sequence[Sketches]) -> Sketches:
        """One after another; at least one part."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("words", "low", "bands")))


def sketch(texts: Sequence[str], kind: Kind) -> Sketches:
    """Sketches of texts; case, punctuation and a plural -s make no difference."""
    from rensa import RMinHash

    tokens = tokenise([plain(text[:TEXT_LIMIT]) for text in texts])
    counts = tokens.counts
    key, owner = tokens.unit, tokens.owner
    if kind.run > 1:
        last = kind.run - 1
        runs = tokens.unit[: len(tokens.unit) - last]
        for step in range(1, kind.run):
            runs = mix(runs * _GOLDEN + tokens.unit[step : len(tokens.unit) - last + step])
        whole = owner[last:] == owner[: len(owner) - last]
        short = counts[owner] < kind.run  # of these the single words
        key = np.concatenate([runs[whole], key[short]])
        owner = np.concatenate([owner[: len(owner) - last][whole], owner[short]])
        order = np.argsort(owner, kind="stable")
        key, owner = key[order], owner[order]
    starts = np.searchsorted(owner, np.arange(len(texts) + 1)).astype(np.uint64)
    rows = RMinHash.digest_matrix_from_flat_token_hashes(key, starts, kind.minima, SEED).to_rows()
    minima = np.array(rows, dtype=np.uint32).reshape(len(texts), kind.minima)
    bands = np.zeros((len(texts), kind.bands), dtype=np.uint64)
    for row in range(kind.rows):
        bands = mix(bands * _GOLDEN + minima[:, row :: kind.rows])
    return Sketches(counts.astype(np.uint32), minima.astype(np.uint8), bands.astype(np.uint32))


def similarity(sketches: Sketches, left: NDArray[np.intp], right: NDArray[np.intp]) -> NDArray[np.float64]:
    """Estimated Jaccard index of texts, pair by pair; unlike texts agree in one low byte of 256 by chance."""
    found = np.empty(len(left))
    for begin in range(0, len(left), _COMPARED):
        pairs = slice(begin, begin + _COMPARED)
        found[pairs] = (sketches.low[left[pairs]] == sketches.low[right[pairs]]).mean(axis=1)
    return np.asarray(np.maximum(0.0, (found - 1 / 256) / (1 - 1 / 256)), dtype=np.float64)


def repeats(sketches: Sketches, kind: Kind, among: NDArray[np.bool_] | None = None) -> NDArray[np.intp]:
    """For each text the earlier one that it nearly repeats, which itself repeats none; -1 where there is none; (n,).

    Of the texts that agree in a band each is compared with the first and with the one before it. So time is linear, and
    where many are alike a text is compared with few of them.

    Args:
        among: Texts that count; all, if None. Shape (n,).
    """
    counted = sketches.words >= kind.least
    rows = np.flatnonzero(counted if among is None else counted & among)
    pairs = np.empty(0, dtype=np.uint64)
    for band in range(kind.bands):
        new = _agreeing(sketches, rows, band)
        if len(pairs):
            new = new[pairs[np.searchsorted(pairs, new) % len(pairs)] != new]
        alike = similarity(sketches, *_apart(new)) >= kind.threshold
        pairs = np.sort(np.concatenate([pairs, new[alike]]))
    original = np.full(len(sketches.words), -1, dtype=np.intp)
    for begin in range(0, len(pairs), _COMPARED):  # sorted, so what is earlier is settled
        later, earlier = _apart(pairs[begin : begin + _COMPARED])
        for row, other in zip(later.tolist(), earlier.tolist(), strict=True):
            if original[row] < 0:
                first = int(original[other])
                if first < 0:
                    original[row] = other
                elif similarity(sketches, np.array([row]), np.array([first]))[0] >= kind.threshold:
                    original[row] = first
    return original


def _agreeing(sketches: Sketches, rows: NDArray[np.intp], band: int) -> NDArray[np.uint64]:
    """Texts that agree in a band with the first that has it, or with the one before: row << 32 | earlier row."""
    keys = sketches.bands[rows, band]
    order = np.argsort(keys, kind="stable")
    keys, rows = keys[order], rows[order]
    begins = np.flatnonzero(np.diff(keys, prepend=~keys[:1]))
    first = np.repeat(rows[begins], np.diff(begins, append=len(rows)))
    before = np.concatenate([rows[:1], rows[:-1]])
    later = rows != first
    shifted = rows[later].astype(np.uint64) << np.uint64(32)
    pairs = np.sort(np.concatenate([shifted | other[later].astype(np.uint64) for other in (first, before)]))
    return np.asarray(pairs[np.flatnonzero(np.diff(pairs, prepend=~pairs[:1]))])  # np.unique takes ten times as long


def _apart(pairs: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return (pairs >> np.uint64(32)).astype(np.intp), (pairs & np.uint64(0xFFFFFFFF)).astype(np.intp)
