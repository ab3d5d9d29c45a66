"""How many of these turns are genuine, honestly: a mean of p_genuine with an interval, marked where it is a guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from filters.features import Features, compute
from filters.rules import Rules, load

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated share of genuine turns.

    Attributes:
        mean: Mean p_genuine; NaN for an empty table.
        low, high: 95 % interval: other conversations could have been drawn, and other judged turns.
        extrapolated: Whether these turns are of a kind that was never judged, so that the interval may be far off.
        why: The reasons for that, empty otherwise.
    """

    mean: float
    low: float
    high: float
    extrapolated: bool
    why: str


def estimate_genuine(
    table: pl.DataFrame,
    rules: Rules | None = None,
    *,
    generator: str | None = None,
    primed: bool = False,
    features: Features | None = None,
) -> Estimate:
    """Mean p_genuine of the rows with a 95 % interval.

    Two things are uncertain, and each of 2,000 draws varies both: which conversations were looked at (rows resampled
    by `conversation_id`, else `site_id`, else row by row), and the calibration (one of its bootstrap replicates).
    What no interval covers is a selection by something the calibration does not see, or turns of another making
    than those it was trained on; the latter is said in `why`.

    Args:
        table: As for `filters.label`.
        generator: Name of the model that wrote the turns; None reads the column `generator` or `model`.
        primed: Whether the turns were asked for by instruction and not sampled at the user header.
        features: `features.compute(table)`, where it is known already.
    """
    rules = load() if rules is None else rules
    features = compute(table) if features is None else features
    why = _why(table, rules, features, generator, primed) if len(table) else []
    if not len(table) or any(rule_set.calibration is None for rule_set in rules.sets.values()):
        return Estimate(float("nan"), float("nan"), float("nan"), True, "; ".join(["nothing to estimate from", *why]))
    p, replicated = _probabilities(features, rules)
    mean = float(p.mean())
    sums, counts = _by_cluster(replicated, _clusters(table))
    rng = np.random.default_rng(0)
    replicates, clusters = sums.shape
    means = np.empty(DRAWS)
    for draw in range(DRAWS):
        picked = rng.integers(clusters, size=clusters)
        means[draw] = sums[draw % replicates, picked].sum() / counts[picked].sum()
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(mean, min(float(low), mean), max(float(high), mean), bool(why), "; ".join(why))


def _probabilities(features: Features, rules: Rules) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """p_genuine, shape (n,), and the same under every replicate of the calibration, shape (replicates, n)."""
    p = np.empty(len(features))
    parts = []
    for name, rows in rules.assign(features).items():
        rule_set = rules.sets[name]
        prepared = rule_set.prepare(features.take(rows))
        calibration = rule_set.calibration
        assert calibration is not None  # noqa: S101  # the caller has looked
        caps = rule_set.caps(prepared, rule_set.decide(prepared))
        p[rows] = np.minimum(prepared.values["p_genuine"], caps)
        parts.append((rows, np.minimum(calibration.replicated(rule_set.odds(prepared)), caps)))
    replicated = np.empty((min(len(drawn) for _, drawn in parts), len(features)))
    for rows, drawn in parts:
        replicated[:, rows] = drawn[: len(replicated)]
    return p, replicated


def _clusters(table: pl.DataFrame) -> NDArray[np.intp]:
    for name in ("conversation_id", "site_id"):
        if name in table.columns:
            keys = np.array([str(value) for value in table[name]])
            return np.asarray(np.unique(keys, return_inverse=True)[1], dtype=np.intp)
    return np.arange(len(table))


def _by_cluster(p: NDArray[np.float64], cluster: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    counts = np.bincount(cluster)
    sums = np.array([np.bincount(cluster, weights=row, minlength=len(counts)) for row in p], dtype=np.float64)
    return sums, np.asarray(counts, dtype=np.intp)


def _why(table: pl.DataFrame, rules: Rules, features: Features, generator: str | None, primed: bool) -> list[str]:
    judged = {source for source in rules.training.get("sources", {}) if source != "written"}
    names = {generator} if generator is not None else _generators(table)
    unknown = sorted(
        name for name in names if name.rstrip("/").rsplit("/", 1)[-1].casefold() not in {j.casefold() for j in judged}
    )
    why = []
    if not names:
        why.append("the generator is not known")
    elif unknown:
        why.append(f"no turns of {', '.join(unknown[:3])} were judged")
    if primed:
        why.append("the turns were asked for by instruction, the judged ones were not")
    foreign = 1 - float(features.english.mean()) if len(features) else 0.0
    if foreign > 0:
        why.append(f"{foreign:.0%} of the turns are not in English")
    return why


def _generators(table: pl.DataFrame) -> set[str]:
    for name in ("generator", "model"):
        if name in table.columns:
            return {value for value in table[name].unique().to_list() if isinstance(value, str)}
    return set()
