"""Labels a table of candidate turns: which rule fired, on what evidence, and how likely the turn is genuine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from filters.evidence import evidence
from filters.features import Features, compute
from filters.labels import Label
from filters.rules import RuleSet, load

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray


def label(table: pl.DataFrame, rules: RuleSet | None = None, features: Features | None = None) -> pl.DataFrame:
    """Adds `label, genuine, p_genuine, rule, evidence`; all other columns and the order of rows stay.

    `genuine` means that no rule fired: the turn passed. It is a verdict of the rules, not a promise; how likely the
    turn really is a follow-up is `p_genuine`, and a turn that passed can well have a low one. The label of a turn that
    passed is `follow_up`, since no rule names a fault; the label of one that did not is its rule's.

    Args:
        table: Columns `query, answer, history, turn`, optionally `finish_reason` and the signal columns. Signals that
            are absent or null leave the row to the rules and the calibration that need none.
        rules: The shipped ones when None.
        features: `features.compute(table)`, where it is known already.

    Raises:
        ValueError: A context column is missing.
    """
    import polars as pl

    rules = load() if rules is None else rules
    features = compute(table) if features is None else features
    decided = rules.decide(features)
    fired = [rules.rules[index] if index >= 0 else None for index in decided]
    turns, answers, histories = (table[name].to_list() for name in ("turn", "answer", "history"))
    return table.with_columns(
        pl.Series("label", [(rule.label if rule else Label.FOLLOW_UP).value for rule in fired], pl.String),
        pl.Series("genuine", decided < 0, pl.Boolean),
        pl.Series("p_genuine", probability(features, rules, decided), pl.Float64),
        pl.Series("rule", [rule.name if rule else None for rule in fired], pl.String),
        pl.Series(
            "evidence",
            [
                evidence(rule, features, index, turns[index] or "", histories[index] or [], answers[index] or "")
                if rule
                else None
                for index, rule in enumerate(fired)
            ],
            pl.String,
        ),
    )


def probability(features: Features, rules: RuleSet, decided: NDArray[np.intp]) -> NDArray[np.float64]:
    """p_genuine for every row, by the calibration of the largest tier set whose signals the row has; shape (n,).

    It is at most the upper end of the miss rate that the rule which fired had on held-out sampled turns.
    NaN for all rows when the rule set has no calibration.
    """
    result = np.full(len(features), np.nan)
    for calibration in rules.calibrations.values():  # Smallest tier set first: a larger one overrides it.
        known = calibration.probability(calibration.design(features, decided >= 0))
        result = np.where(np.isnan(known), result, known)
    return np.asarray(np.minimum(result, caps(rules)[decided]), dtype=np.float64)


def caps(rules: RuleSet) -> NDArray[np.float64]:
    """Upper bound of p_genuine by rule, and 1 at the end, where the index -1 of "no rule" finds it."""
    bounds = [rule.precision["sampled"].genuine_high if "sampled" in rule.precision else 1.0 for rule in rules.rules]
    return np.array([*bounds, 1.0])
