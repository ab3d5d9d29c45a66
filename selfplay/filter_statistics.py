"""What the closing lines of `selfplay filter` tell: labels, who decided, what stayed, and how good it is estimated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl

from filters import estimate_genuine
from filters.features import Features
from filters.labels import Label

if TYPE_CHECKING:
    from filters.rules import Rules

PASSED = Label.FOLLOW_UP.value
"""The label of turns on which no rule fired. They passed; nobody judged them follow-ups, and no line may say so."""

ESTIMATED_ROWS = 30_000
"""The estimate looks at this many rows at most, so that memory stays bounded."""


class Statistics:
    """Gathered batch by batch."""

    def __init__(self, asked: str | None = None) -> None:
        """Args: the option that asked for the text rules, if one did; said where they decided."""
        self._unmeasured = asked or "without all signals"
        self.rows = 0
        self.labels: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.decided: Counter[str] = Counter()
        self.why_text: Counter[str] = Counter()
        self.calibrated = False
        self._p_all = 0.0
        self._p_kept = 0.0
        self._seen: list[tuple[pl.DataFrame, Features]] = []

    def add(self, table: pl.DataFrame, features: Features) -> None:
        """Args: a batch with `label, genuine, p_genuine, rule_set, rejected_for`, and its features."""
        stays = table["rejected_for"].is_null()
        self.labels.update(table["label"].to_list())
        self.kept.update(table.filter(stays)["label"].to_list())
        self.rejected.update(table["rejected_for"].drop_nulls().str.split("; ").explode().to_list())
        self.decided.update(table["rule_set"].to_list())
        by_text = (table["rule_set"] == "text").to_numpy()
        foreign = int((by_text & ~features.english).sum())
        self.why_text["not in English"] += foreign
        self.why_text[self._unmeasured] += int(by_text.sum()) - foreign
        p = table["p_genuine"].fill_nan(None)
        self.calibrated = self.calibrated or p.count() > 0
        self._p_all += float(p.sum())
        self._p_kept += float(p.filter(stays).sum())
        if self.rows < ESTIMATED_ROWS:
            columns = [name for name in ("conversation_id", "site_id", "model") if name in table.columns]
            self._seen.append((table.select(*columns, "genuine", stays=stays), features))
        self.rows += len(table)

    def lines(self, rules: Rules, generator: str | None, primed: bool, rejects: str | None) -> Iterator[str]:
        """Lines for a person.

        Args:
            generator, primed: As `estimate_genuine` takes them.
            rejects: Where rejected rows went; None where all stay.
        """
        passed = self.labels[PASSED]
        share = f" ({passed / self.rows:.0%})" if self.rows else ""
        yield f"{self.rows:,} turns, {passed:,} passed the rules{share}"
        faults = [(name, count) for name, count in self.labels.most_common() if name != PASSED]
        if faults:
            yield "faults: " + ", ".join(f"{name} {count:,}" for name, count in faults)
        if self.rows:
            yield self._decided()
        if rejects is not None:
            yield from self._kept(rejects)
        if not self._seen:
            return
        table = pl.concat([part for part, _ in self._seen], how="diagonal")
        features = Features.concat([part for _, part in self._seen])
        chosen = ("those kept", table["stays"]) if rejects is not None else ("those that passed", table["genuine"])
        for name, rows in (("all turns", table["stays"].is_not_null()), chosen):
            mask = rows.to_numpy()
            if mask.any():
                found = estimate_genuine(
                    table.filter(rows), rules, generator=generator, primed=primed, features=features.take(mask)
                )
                mark = f"; extrapolated: {found.why}" if found.extrapolated else ""
                yield f"estimated genuine among {name}: {found.mean:.0%} [{found.low:.0%}, {found.high:.0%}]{mark}"
        if rejects is not None and self._p_all > 0:
            yield (
                f"estimated yield: about {_about(self._p_kept)} of {_about(self._p_all)} genuine turns kept "
                f"({self._p_kept / self._p_all:.0%})"
            )
        if self.rows > len(table):
            yield f"(share estimated on the first {len(table):,} rows)"

    def _decided(self) -> str:
        parts = [f"{name} {self.decided[name]:,}" for name in ("full", "text") if self.decided[name]]
        reasons = {why: count for why, count in self.why_text.items() if count}
        if len(reasons) == 1:
            parts[-1] += f" ({next(iter(reasons))})"
        elif reasons:
            parts[-1] += f" ({', '.join(f'{count:,} {why}' for why, count in reasons.items())})"
        return f"decided by the rules: {', '.join(parts)}"

    def _kept(self, rejects: str) -> Iterator[str]:
        kept = sum(self.kept.values())
        yield f"kept {kept:,}, rejected {self.rows - kept:,}" + (f", see {rejects}" if kept < self.rows else "")
        if self.rejected:
            yield "rejected for " + ", ".join(f"{why} ({count:,})" for why, count in self.rejected.most_common())
        names = ", ".join(f"{name} {self.kept[name]:,} of {count:,}" for name, count in self.labels.most_common())
        yield f"kept of each label: {names}"


def _about(count: float) -> str:
    return f"{count:,.0f}" if count >= 100 else f"{count:.1f}"
