"""How far raters agree on labels and grades, by the statistics of scikit-learn, statsmodels and krippendorff.

Knows nothing of files: raters' codes in, figures out. Intervals are percentile bootstrap over whole conversations,
since turns of one conversation are not independent (`pip install 'selfplay-turns[agree]'`).
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.labels import PRECEDENCE, Label
from filters.resampling import clusters, resampled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[np.intp]

MISSING = -1
GRADES = 4
GENUINE = PRECEDENCE.index(Label.FOLLOW_UP)
LEAST_CONVERSATIONS = 5
"""With fewer, resampling them says nothing."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A statistic with its 95 % interval; None where it is not defined, as kappa is with one label only."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Ratings:
    """What raters said of the same turns.

    Attributes:
        raters: Their names, r of them.
        labels: Index into `PRECEDENCE`, shape (n, r); `MISSING` where a rater gave none.
        grades: 0..3, shape (n, r); `MISSING` where a rater gave none.
        conversations: The conversation of each turn, shape (n,).
    """

    raters: tuple[str, ...]
    labels: Codes
    grades: Codes
    conversations: Codes

    @property
    def genuine(self) -> Codes:
        """1 for a follow-up, 0 for anything else, shape (n, r)."""
        return np.where(self.labels == MISSING, MISSING, (self.labels == GENUINE).astype(np.intp))


def agreement(ratings: Ratings, replicates: int = 1000, seed: int = 0) -> dict[str, Any]:
    """All figures of agreement; JSON types but for `Figure`.

    Returns:
        `pairs`: for each two raters `raters, n, agree, cohen_label, cohen_genuine, cohen_grade` (quadratic weights)
        and `confusion` (counts, rows the first rater's labels, columns the second's, in the order of precedence).
        `together`: `krippendorff_label, krippendorff_genuine` (nominal), `krippendorff_grade` (ordinal), over turns
        that two or more rated; with three raters or more `fleiss_label, fleiss_genuine`, over turns that all rated.
    """
    codes = {"label": ratings.labels, "genuine": ratings.genuine, "grade": ratings.grades}
    sizes = {"label": len(PRECEDENCE), "genuine": 2, "grade": GRADES}
    draw = _Resampling(ratings.conversations, replicates, seed)
    pairs = []
    for a, b in itertools.combinations(range(len(ratings.raters)), 2):
        first, second = ratings.labels[:, a], ratings.labels[:, b]
        both = (first != MISSING) & (second != MISSING)
        found: dict[str, Any] = {
            "raters": [ratings.raters[a], ratings.raters[b]],
            "n": int(both.sum()),
            "agree": _same(draw, first, second),
        }
        for name, matrix in codes.items():
            found[f"cohen_{name}"] = _cohen(draw, matrix[:, a], matrix[:, b], sizes[name], name == "grade")
        counts = np.zeros((len(PRECEDENCE), len(PRECEDENCE)), dtype=int)
        np.add.at(counts, (first[both], second[both]), 1)
        found["confusion"] = counts.tolist()
        pairs.append(found)
    together = {
        f"krippendorff_{name}": _krippendorff(draw, matrix, sizes[name], "ordinal" if name == "grade" else "nominal")
        for name, matrix in codes.items()
    }
    if len(ratings.raters) > 2:
        together |= {f"fleiss_{name}": _fleiss(draw, codes[name], sizes[name]) for name in ("label", "genuine")}
    return {"pairs": pairs, "together": together}


def _same(draw: _Resampling, first: Codes, second: Codes) -> Figure:
    """The share of turns with the same label."""

    def share(rows: Codes) -> float:
        return float(np.mean(first[rows] == second[rows]))

    return draw.figure(share, (first != MISSING) & (second != MISSING))


def _cohen(draw: _Resampling, first: Codes, second: Codes, size: int, weighted: bool) -> Figure:
    """Cohen's kappa (1960), with quadratic weights (1968) for grades."""
    from sklearn.metrics import cohen_kappa_score

    codes, weights = list(range(size)), "quadratic" if weighted else None

    def kappa(rows: Codes) -> float:
        return float(cohen_kappa_score(first[rows], second[rows], labels=codes, weights=weights))

    return draw.figure(kappa, (first != MISSING) & (second != MISSING))


def _krippendorff(draw: _Resampling, codes: Codes, size: int, level: str) -> Figure:
    """Krippendorff's alpha, which takes turns that some raters left out."""
    import krippendorff

    counts = tallies(codes, size)

    def alpha(rows: Codes) -> float:
        here = counts[rows]
        if np.count_nonzero(here.sum(axis=0)) < 2:
            return float("nan")  # the package raises where a single value was used
        return float(krippendorff.alpha(value_counts=here, value_domain=range(size), level_of_measurement=level))

    return draw.figure(alpha, counts.sum(axis=1) >= 2)


def _fleiss(draw: _Resampling, codes: Codes, size: int) -> Figure:
    """Fleiss' kappa (1971)."""
    from statsmodels.stats.inter_rater import fleiss_kappa

    counts = tallies(codes, size)
    return draw.figure(lambda rows: float(fleiss_kappa(counts[rows])), (codes != MISSING).all(axis=1))


def tallies(codes: Codes, size: int) -> Codes:
    """How many raters chose each value: (n, r) codes in, (n, size) counts out."""
    return np.stack([(codes == value).sum(axis=1) for value in range(size)], axis=1).astype(np.intp)


class _Resampling:
    """Turns a statistic of rows into a figure with an interval, by drawing whole conversations with replacement."""

    def __init__(self, conversations: Codes, replicates: int, seed: int) -> None:
        self._conversations = conversations
        self._replicates = replicates
        self._seed = seed

    def figure(self, statistic: Callable[[Codes], float], use: NDArray[np.bool_]) -> Figure:
        """`statistic` of the rows in `use`; the same draws for every statistic of the same rows."""
        rows = np.flatnonzero(use)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            point = statistic(rows) if len(rows) else float("nan")
            if not np.isfinite(point):
                return Figure(None, None, None, len(rows))
            members = clusters(self._conversations[rows])
            if len(members) < LEAST_CONVERSATIONS or not self._replicates:
                return Figure(point, None, None, len(rows))
            rng = np.random.default_rng(self._seed)
            drawn = np.array([statistic(rows[resampled(members, rng)]) for _ in range(self._replicates)])
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn) < self._replicates / 2:
            return Figure(point, None, None, len(rows))
        low, high = (float(value) for value in np.percentile(drawn, [2.5, 97.5]))
        return Figure(point, low, high, len(rows))
