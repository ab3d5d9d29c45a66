"""Chooses k of a site's candidates that are good and unlike each other, and unlike what earlier sites were given.

Maximal marginal relevance (Carbonell and Goldstein 1998): each pick maximises
(1 - diversity) * merit - diversity * redundancy, redundancy being the larger of the similarity to what was already
picked at the site and of what earlier sites' picks have worn out.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rerank.variety import ngrams, opening, words

Floats = npt.NDArray[np.float64]
_BUCKETS = 1 << 20


class Worn:
    """What the turns chosen so far were made of: how often each pair of words, and each opening, was used.

    Counts lie in 2**20 buckets by a hash, so that memory (4 MB) does not grow with the run; two pairs that share one
    only look more worn than they are. The same turns in the same order give the same counts on every machine.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, dtype=np.uint32)
        self._turns = 0

    def redundancy(self, turn: str) -> float:
        """0 for a turn of which nothing was used before, 1 for one whose words every chosen turn had.

        Half of it is the opening's wear, half the mean over the turn's distinct pairs of words. The wear of what was
        used c times in T turns is log(1 + c) / log(1 + T): steady as the run grows, and steep where it begins.
        """
        first, pairs = _buckets(turn)
        if not self._turns or first is None:
            return 0.0
        scale = math.log1p(self._turns)
        opened = math.log1p(int(self._counts[first])) / scale
        said = float(np.log1p(self._counts[pairs]).mean()) / scale if len(pairs) else opened
        return min(1.0, (opened + said) / 2)

    def add(self, turn: str) -> None:
        """Counts a chosen turn."""
        first, pairs = _buckets(turn)
        if first is not None:
            self._counts[first] += 1
        self._counts[pairs] += 1
        self._turns += 1


def _buckets(turn: str) -> tuple[int | None, npt.NDArray[np.int64]]:
    tokens = words(turn)
    pairs = {_bucket(" ".join(pair)) for pair in ngrams(tokens, 2)}
    first = _bucket("\0" + " ".join(opening(tokens))) if tokens else None
    return first, np.array(sorted(pairs - {first}), dtype=np.int64)


def _bucket(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % _BUCKETS


def same_text(turn: str) -> str:
    """Equal for turns that differ in case, spaces and punctuation only."""
    return " ".join(words(turn)) or turn.strip()


def same_words(left: str, right: str) -> float:
    """Similarity (0..1) where no embedder is there: shared words, Dice's coefficient."""
    one, other = set(words(left)), set(words(right))
    return 2 * len(one & other) / max(len(one) + len(other), 1)


def pick(
    turns: Sequence[str],
    merits: Sequence[float],
    k: int,
    diversity: float,
    vectors: npt.NDArray[np.float32] | None = None,
    worn: Worn | None = None,
) -> list[int]:
    """Places of at most `k` turns, in the order they were picked; a text picked once is not picked again.

    Args:
        turns: Candidates of one site, best first: among equals the earlier one is picked.
        merits: In 0..1.
        diversity: 0 takes the first `k` by merit, 1 looks at redundancy alone.
        vectors: Unit-length embeddings, one row per turn; without them turns are compared by their words.
        worn: Of earlier sites. Not changed.
    """
    wear = [worn.redundancy(turn) if worn is not None and diversity else 0.0 for turn in turns]
    keys = [same_text(turn) for turn in turns]
    left = list(range(len(turns)))
    picked: list[int] = []
    nearest = [0.0] * len(turns)

    def order(place: int) -> tuple[float, int]:
        gain = (1 - diversity) * merits[place] - diversity * max(nearest[place], wear[place])
        # Rounded, so that the last digits of an embedder's batch decide nothing.
        return round(gain, 6), -place

    while left and len(picked) < k:
        best = max(left, key=order)
        picked.append(best)
        left = [place for place in left if keys[place] != keys[best]]
        if diversity and len(picked) < k:
            for place in left:
                close = float(vectors[place] @ vectors[best]) if vectors is not None else same_words(
                    turns[place], turns[best]
                )  # fmt: skip
                nearest[place] = max(nearest[place], round(close, 4))
    return picked
