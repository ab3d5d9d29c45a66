"""Why a turn has the groundedness it has: what each signal said, and the words of the answer that it took up.

The fusion is a sum of log-odds, so that nothing is approximated: intercept and contributions add up to the score.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp

import polars as pl

from rerank.anchors import anchor_terms
from rerank.fuse import COPY_CAP, add_signals, contributions
from rerank.weights import TIER_SIGNALS, Weights

TOP = 4
"""Signals that the short form names."""


@dataclass(frozen=True, slots=True)
class Said:
    """One signal of one turn: its value (None where it is not known) and what it adds to the log-odds."""

    tier: str
    signal: str
    value: float | None
    log_odds: float


@dataclass(frozen=True, slots=True)
class Breakdown:
    """All there is to one turn's groundedness.

    Attributes:
        intercept: Log-odds of an average turn.
        said: By tier, in it the strongest first.
        anchors: Terms of the answer, and only of it, that the turn takes up.
        blank: Nothing but white space: groundedness 0, whatever the signals.
    """

    ranked_with: str
    groundedness: float
    intercept: float
    said: tuple[Said, ...]
    anchors: tuple[str, ...]
    copy: bool
    blank: bool

    @property
    def log_odds(self) -> float:
        """Intercept and signals together, before the cap of a copy."""
        return self.intercept + sum(each.log_odds for each in self.said)


def breakdowns(ranked: pl.DataFrame, weights: Weights) -> Iterator[Breakdown]:
    """One for each row of what `rank` gave with the same weights, in order."""
    table = add_signals(ranked, weights)
    for name in table["ranked_with"].unique():
        if name not in weights.models:
            raise ValueError(f"ranked with {name!r}, of which these weights have no model")
    by_model = {name: contributions(table, weights.models[name]) for name in table["ranked_with"].unique().to_list()}
    for index, row in enumerate(table.iter_rows(named=True)):
        model, found = weights.models[row["ranked_with"]], by_model[row["ranked_with"]]
        said = [
            Said(tier, signal, row.get(signal), float(found[signal][index]))
            for tier in row["ranked_with"].split("+")
            for signal in TIER_SIGNALS[tier]
            if signal in model.shapes
        ]
        order = {tier: place for place, tier in enumerate(row["ranked_with"].split("+"))}
        said.sort(key=lambda each: (order[each.tier], -abs(each.log_odds)))
        history = row["history"] if "history" in row else [row["query"]] if row["query"] else []
        turn = row["turn"] or ""
        yield Breakdown(
            row["ranked_with"],
            row["groundedness"],
            model.intercept,
            tuple(said),
            tuple(anchor_terms(turn, row["answer"] or "", history or [], weights.common_words)),
            row["copy"],
            not turn.strip(),
        )


def brief(ranked: pl.DataFrame, weights: Weights) -> list[list[str]]:
    """Per row a few lines: the score, the signals that moved it most, the anchors."""
    return [list(_brief(each)) for each in breakdowns(ranked, weights)]


def full(ranked: pl.DataFrame, row: int, weights: Weights) -> list[str]:
    """All about one row, as lines of plain text."""
    found = next(breakdowns(ranked[row : row + 1], weights))
    tiers = found.ranked_with.split("+")
    sums = {tier: sum(each.log_odds for each in found.said if each.tier == tier) for tier in tiers}
    lines = [
        f"groundedness {found.groundedness:.2f}, ranked with {found.ranked_with}",
        *_exceptions(found),
        f"log-odds {found.log_odds:+.2f} = {found.intercept:+.2f} for any turn"
        + "".join(f" {value:+.2f} {tier}" for tier, value in sums.items()),
    ]
    width = max((len(each.signal) for each in found.said), default=0)
    for tier in tiers:
        lines.append(f"{tier:{width + 2}} {'value':>8} {'log-odds':>9}")
        lines += [
            f"  {each.signal:{width}} {_value(each.value):>8} {each.log_odds:>+9.2f}"
            for each in found.said
            if each.tier == tier
        ]
    return [*lines, f"anchors: {', '.join(found.anchors) or 'none'}"]


def _brief(found: Breakdown) -> Iterator[str]:
    odds = f"log-odds {found.log_odds:+.2f}, an average turn {found.intercept:+.2f}"
    yield f"groundedness {found.groundedness:.2f} ({odds}; {found.ranked_with})"
    yield from _exceptions(found)
    strongest = sorted(found.said, key=lambda each: -abs(each.log_odds))[:TOP]
    if not found.blank:
        yield ", ".join(f"{each.signal} {_value(each.value)} ({each.log_odds:+.2f})" for each in strongest)
    yield f"anchors: {', '.join(found.anchors) or 'none'}"


def _exceptions(found: Breakdown) -> Iterator[str]:
    if found.blank:
        yield "blank: groundedness 0 whatever the signals"
    elif found.copy:
        capped = 1 / (1 + exp(-found.log_odds)) > COPY_CAP
        yield f"a copy of the answer or of the user's own words{f', held down to {COPY_CAP}' if capped else ''}"


def _value(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3g}"
