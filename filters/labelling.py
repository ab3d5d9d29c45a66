"""Labels a table of candidate turns: which rule fired, on what evidence, and how likely the turn is genuine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from filters.evidence import evidence
from filters.features import Features, compute
from filters.labels import Label
from filters.rules import Rules, load

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray


def label(
    table: pl.DataFrame, rules: Rules | None = None, features: Features | None = None, only: str | None = None
) -> pl.DataFrame:
    """Adds `label, genuine, p_genuine, rule, evidence, rule_set`; all other columns and the order of rows stay.

    `genuine` means that no rule fired: the turn passed. It is a verdict of the rules, not a promise; how likely the
    turn really is a follow-up is `p_genuine`, and a turn that passed can well have a low one. The label of a turn that
    passed is `follow_up`, since no rule names a fault; the label of one that did not is its rule's. `rule_set` says
    which set decided the row: `full`, or `text` where signals are unknown or the turn is not in English.

    Args:
        table: Columns `query, answer, history, turn`, optionally `finish_reason`, the signal columns and `turn_state`.
        rules: The shipped ones when None.
        features: `features.compute(table)`, where it is known already.
        only: The rule set to use for all rows.

    Raises:
        ValueError: A context column is missing, there is no such rule set, or `turn_state` is not what its probe reads.
    """
    import polars as pl

    rules = load() if rules is None else rules
    rules = rules if only is None else rules.only(only)
    features = compute(table) if features is None else features
    turns, answers, histories = (table[name].to_list() for name in ("turn", "answer", "history"))
    found = decide(rules, features)
    fired = [rules.sets[name].rules[index] if index >= 0 else None for name, index in zip(*found[:2], strict=True)]
    return table.with_columns(
        pl.Series("label", [(rule.label if rule else Label.FOLLOW_UP).value for rule in fired], pl.String),
        pl.Series("genuine", [rule is None for rule in fired], pl.Boolean),
        pl.Series("p_genuine", found[2], pl.Float64).fill_nan(None),
        pl.Series("rule", [rule.name if rule else None for rule in fired], pl.String),
        pl.Series(
            "evidence",
            [
                evidence(rule, found[3], index, turns[index] or "", histories[index] or [], answers[index] or "")
                if rule
                else None
                for index, rule in enumerate(fired)
            ],
            pl.String,
        ),
        pl.Series("rule_set", found[0], pl.String),
    )


def decide(
    rules: Rules, features: Features
) -> tuple[NDArray[np.str_], NDArray[np.intp], NDArray[np.float64], Features]:
    """For every row the set that decides, the index of its rule that fired (-1: none), p_genuine, and all it saw.

    p_genuine is NaN where the set has no scores. The last are the features with the scores of the deciding set.
    """
    n = len(features)
    names = np.full(n, "", dtype="U8")
    decided, probability = np.full(n, -1, dtype=np.intp), np.full(n, np.nan)
    scores: dict[str, NDArray[np.float64]] = {}
    for name, rows in rules.assign(features).items():
        rule_set = rules.sets[name]
        prepared = rule_set.prepare(features.take(rows))
        names[rows], decided[rows] = name, (fired := rule_set.decide(prepared))
        probability[rows] = rule_set.probability(prepared, fired)
        for column, values in prepared.values.items():
            if column not in features.values:
                scores.setdefault(column, np.full(n, np.nan))[rows] = values
    return names, decided, probability, features.plus(scores)
