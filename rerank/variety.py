"""How varied a set of turns is: what choosing by score may cost, since the best of each site may all sound alike.

Sets are compared at equal size. Distinct-n falls with the amount of text, so it is the share expected among as many
n-grams as the smallest of the compared sets has; the other figures do not depend on a turn's length, and self-BLEU
only on the number of turns, which callers keep equal.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# A letter of Han, kana, Thai, Lao, Khmer or Myanmar is a word here: these scripts put no spaces between words.
_WORD = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|\\w+")
_QUESTION = re.compile(r"[?？؟]")
OPENING = 2
"""Words that make an opening."""
BLEU_ORDER = 4


@dataclass(frozen=True, slots=True)
class Variety:
    """Figures of one set of turns; those without a unit are shares in 0..1.

    Attributes:
        turns: How many there are.
        questions: Turns with a question mark.
        words: Mean number of words of a turn.
        openings: Distinct openings (first two words) per turn.
        common_opening: The most frequent opening; the first in the alphabet among equals.
        common_opening_share: Turns that begin so.
        distinct_1, distinct_2: Distinct words, pairs of neighbouring words, per word, per pair (Li et al. 2016,
            arXiv 1510.03055), at the size of the smallest set.
        self_bleu: Mean BLEU-4 of each turn against all others (Zhu et al. 2018, arXiv 1802.01886); high is uniform.
    """

    turns: int
    questions: float
    words: float
    openings: float
    common_opening: str
    common_opening_share: float
    distinct_1: float
    distinct_2: float
    self_bleu: float


def words(text: str) -> list[str]:
    """Words and numbers, case folded."""
    return _WORD.findall(text.casefold())


def opening(tokens: Sequence[str]) -> tuple[str, ...]:
    """The first words; fewer where there are no more."""
    return tuple(tokens[:OPENING])


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of `n` neighbouring words."""
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def compare(sets: Sequence[Sequence[str]]) -> list[Variety]:
    """The figures of each set of turns, distinct-n at the size of the smallest."""
    told = [[words(turn) for turn in turns] for turns in sets]
    counts = [{n: Counter(gram for turn in tokens for gram in ngrams(turn, n)) for n in (1, 2)} for tokens in told]
    sizes = {n: min((count[n].total() for count in counts), default=0) for n in (1, 2)}
    return [
        _variety(turns, tokens, *(distinct(count[n].values(), sizes[n]) for n in (1, 2)))
        for turns, tokens, count in zip(sets, told, counts, strict=True)
    ]


def mean(measured: Sequence[Variety]) -> Variety:
    """The mean of several draws of one set; openings are the first draw's.

    Raises:
        ValueError: There is none.
    """
    if not measured:
        raise ValueError("no set to take the mean of")
    numbers = {
        name: sum(getattr(one, name) for one in measured) / len(measured)
        for name in ("questions", "words", "openings", "common_opening_share", "distinct_1", "distinct_2", "self_bleu")
    }
    return Variety(turns=measured[0].turns, common_opening=measured[0].common_opening, **numbers)


def distinct(frequencies: Iterable[int], size: int) -> float:
    """Expected distinct types among `size` tokens drawn without replacement, per token (0..1); 0 for none.

    Hurlbert's rarefaction (1971): a type of frequency f among N is missed with probability C(N-f, m) / C(N, m). With
    `size` the number of all tokens this is the plain ratio of types to tokens.
    """
    of_frequency = Counter(frequencies)
    total = sum(f * types for f, types in of_frequency.items())
    size = min(size, total)
    if not size:
        return 0.0

    def missed(f: int) -> float:
        if total - f < size:
            return 0.0
        log = math.lgamma(total - f + 1) + math.lgamma(total - size + 1)
        return math.exp(log - math.lgamma(total - f - size + 1) - math.lgamma(total + 1))

    return sum(types * (1 - missed(f)) for f, types in of_frequency.items()) / size


def self_bleu(turns: Sequence[Sequence[str]]) -> float:
    """Mean over turns (as words) of sentence BLEU-4 with all other turns as references; 0 for fewer than two.

    Precisions add one to both counts, as smoothing for short texts (Lin and Och 2004). Orders that a turn is too
    short for are left out. The time is linear in the number of words: of every n-gram only the two highest counts in
    one turn matter.
    """
    if len(turns) < 2:
        return 0.0
    grams = [[Counter(ngrams(turn, n)) for n in range(1, BLEU_ORDER + 1)] for turn in turns]
    top: list[dict[tuple[str, ...], tuple[int, int, int]]] = [{} for _ in range(BLEU_ORDER)]
    for place, orders in enumerate(grams):
        for order, counter in enumerate(orders):
            for gram, count in counter.items():
                first, owner, second = top[order].get(gram, (0, -1, 0))
                top[order][gram] = (count, place, first) if count > first else (first, owner, max(second, count))
    return sum(_bleu(place, len(turn), grams[place], top) for place, turn in enumerate(turns)) / len(turns)


def _bleu(
    place: int,
    length: int,
    orders: Sequence[Counter[tuple[str, ...]]],
    top: Sequence[dict[tuple[str, ...], tuple[int, int, int]]],
) -> float:
    """Without a brevity penalty: among many references one of about the same length is near."""
    usable = min(BLEU_ORDER, length)
    if not usable:
        return 0.0
    logs = 0.0
    for order in range(usable):
        hits = 0
        for gram, count in orders[order].items():
            first, owner, second = top[order][gram]
            hits += min(count, second if owner == place else first)
        total = length - order
        # Unsmoothed for single words: a turn that shares none with the others has BLEU 0.
        precision = hits / total if order == 0 else (hits + 1) / (total + 1)
        if not precision:
            return 0.0
        logs += math.log(precision)
    return math.exp(logs / usable)


def _variety(turns: Sequence[str], told: Sequence[Sequence[str]], distinct_1: float, distinct_2: float) -> Variety:
    n = max(len(turns), 1)
    openings = Counter(opening(tokens) for tokens in told if tokens)
    common, times = min(openings.items(), key=lambda item: (-item[1], item[0]), default=((), 0))
    return Variety(
        turns=len(turns),
        questions=sum(bool(_QUESTION.search(turn)) for turn in turns) / n,
        words=sum(map(len, told)) / n,
        openings=len(openings) / n,
        common_opening=" ".join(common),
        common_opening_share=times / n,
        distinct_1=distinct_1,
        distinct_2=distinct_2,
        self_bleu=self_bleu(told),
    )
