"""The figures of an evaluation: selection against chance, baselines and oracle, and how well scores order turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rerank.evaluation.bootstrap import Bootstrap, Estimate, estimate
from rerank.evaluation.curves import ALL, best_of, ndcg
from rerank.evaluation.order import auc_of, spearman_of
from rerank.learn import GENUINE

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
NEAR = (GENUINE, "off_topic", "generic")
"""Labels of turns that could be a user's: among these a score must tell who reacts to the answer."""


@dataclass(frozen=True, slots=True)
class Turns:
    """Judged turns, arrays of shape (n,).

    Attributes:
        sites: What a turn competes in.
        conversations: What the bootstrap draws.
        labels: The judge's.
        grades: The judge's, 0..3.
    """

    sites: pl.Series
    conversations: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    grades: Floats

    @classmethod
    def of(cls, table: pl.DataFrame, by: str = "site_id", conversation: str | None = None) -> Turns:
        """From the columns `by`, `conversation` (each site its own if None), `label` and `grade`."""
        return cls(
            table[by],
            table[conversation or by].to_numpy(),
            table["label"].to_numpy(),
            table["grade"].cast(pl.Float64).to_numpy(),
        )

    @property
    def genuine(self) -> Flags:
        return np.asarray(self.labels == GENUINE, dtype=np.bool_)

    @property
    def near(self) -> Flags:
        return np.isin(self.labels, NEAR)

    @property
    def site_conversations(self) -> npt.NDArray[Any]:
        """The conversation of each site, sites in sorted order."""
        table = pl.DataFrame({"site": self.sites, "conversation": self.conversations})
        return table.unique("site", keep="first").sort("site")["conversation"].to_numpy()

    def take(self, rows: Flags) -> Turns:
        """Some of the turns."""
        return Turns(self.sites.filter(pl.Series(rows)), self.conversations[rows], self.labels[rows], self.grades[rows])


class Selection:
    """Share genuine of the turn that each score selects, drawn by one bootstrap: differences are paired."""

    def __init__(self, turns: Turns, scores: Mapping[str, Floats], ns: Sequence[int], bootstrap: Bootstrap) -> None:
        """Computes every curve.

        Args:
            scores: By name, shape (n,) each; higher is better. `random` and `oracle` are added.
            ns: Numbers of candidates to select from; `curves.ALL` is added as the last.
        """
        self.ns = (*ns, ALL)
        genuine = turns.genuine.astype(np.float64)
        every = {**scores, "random": np.zeros(len(genuine)), "oracle": genuine}
        self._drawn = {
            name: bootstrap.means(best_of(turns.sites, score, genuine, self.ns), turns.site_conversations)
            for name, score in every.items()
        }

    def curve(self, name: str) -> list[Estimate]:
        """One for each N of `ns`."""
        return [estimate(self._drawn[name][:, column]) for column in range(len(self.ns))]

    def share(self, name: str) -> Estimate:
        """Selected from all candidates."""
        return estimate(self._drawn[name][:, -1])

    def minus(self, name: str, other: str) -> Estimate:
        """The share that one score selects minus that of another, from all candidates, on the same draws."""
        return estimate(self._drawn[name][:, -1] - self._drawn[other][:, -1])

    def ratio(self, name: str, other: str) -> Estimate:
        """The one divided by the other."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return estimate(self._drawn[name][:, -1] / self._drawn[other][:, -1])


def order_draws(turns: Turns, score: Floats, bootstrap: Bootstrap) -> dict[str, Floats]:
    """How well a score orders the turns, in every draw, shape (1 + resamples,) each.

    Args:
        score: Shape (n,); NaN comes last.

    Returns:
        auc_near: AUC of genuine among `NEAR`. auc: among all. spearman: with the grade, over all turns;
        spearman_near: over `NEAR`. ndcg: mean over sites with a grade above 0.
    """
    known = np.where(np.isnan(score), -np.inf, score)
    near = turns.near
    by_site = ndcg(turns.sites, score, turns.grades)
    graded = np.isfinite(by_site)
    return {
        "auc_near": bootstrap.statistic(auc_of(known[near], turns.genuine[near]), turns.conversations[near]),
        "auc": bootstrap.statistic(auc_of(known, turns.genuine), turns.conversations),
        "spearman": bootstrap.statistic(spearman_of(known, turns.grades), turns.conversations),
        "spearman_near": bootstrap.statistic(spearman_of(known[near], turns.grades[near]), turns.conversations[near]),
        "ndcg": bootstrap.means(by_site[graded, None], turns.site_conversations[graded])[:, 0],
    }


def order(turns: Turns, score: Floats, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """`order_draws` with their intervals."""
    return {name: estimate(drawn) for name, drawn in order_draws(turns, score, bootstrap).items()}


def selected_genuine(
    table: pl.DataFrame, by: str = "site_id", resamples: int = 2000, seed: int = 0
) -> Mapping[str, Estimate]:
    """Share genuine of the turn of rank 1, with the ratios to a random candidate and to the oracle.

    Args:
        table: `by`, `rank` and `label` (`follow_up` is genuine), one row per candidate; each site counts once.

    Returns:
        selected, random, oracle (shares of sites), ratio_random, ratio_oracle.
    """
    turns = Turns.of(table.with_columns(grade=pl.lit(0)), by)
    selection = Selection(
        turns,
        {"selected": -table["rank"].cast(pl.Float64).to_numpy()},
        (),
        Bootstrap(turns.conversations, resamples, seed),
    )
    found = {name: selection.share(name) for name in ("selected", "random", "oracle")}
    return found | {f"ratio_{name}": selection.ratio("selected", name) for name in ("random", "oracle")}


def figures(ranked: pl.DataFrame, by: str = "site_id") -> dict[str, float]:
    """What the weights file records of a cross-validation: AUC, Spearman with the grade, selected genuine."""
    turns = Turns.of(ranked, by)
    score = ranked["groundedness"].to_numpy()
    found = {name: each.value for name, each in order(turns, score, Bootstrap(turns.conversations, 0)).items()}
    found["mae"] = float(np.abs(score - turns.grades / 3).mean())
    found |= {name: each.value for name, each in selected_genuine(ranked, by, resamples=0).items()}
    return {name: round(value, 4) for name, value in found.items()}
