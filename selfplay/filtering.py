"""The `filter` verb's work: rows of a file → missing signals measured → labelled → the rows written back.

Batch by batch, so that memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from filters import estimate_genuine, label
from filters.features import Features, compute
from filters.labels import Label
from filters.rules import Rules
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.turnrows import iter_turn_rows, left_out, take_from_rows, write_turn_rows
from selfplay.learned import load_rules
from selfplay.signals.measure import SIGNALS
from selfplay.signals.tiers import CHOICES, Measurer

ADDED = ("label", "genuine", "p_genuine", "rule", "evidence")
CARRIED = pl.Schema(
    {
        **{name: pl.Float64() for names in SIGNALS.values() for name in names},
        "conversation_id": pl.String(),
        "model": pl.String(),
    }
)
"""What filtering takes from the rows themselves where they have it."""

PASSED = Label.FOLLOW_UP.value
"""The label of turns on which no rule fired. They passed; nobody judged them follow-ups, and no line may say so."""

ESTIMATED_ROWS = 100_000
"""The estimate looks at this many rows at most, so that memory stays bounded."""


def filter_file(
    source: str, out: str, rules: str | None, tiers: str, quarantine: Quarantine, generator: str | None, primed: bool
) -> Iterator[str]:
    """Labels the turns of `source` and writes the rows to `out`; yields lines about what was done.

    Args:
        generator: Model that wrote the turns, to tell whether turns of it were judged.
        primed: The turns were asked for by instruction.

    Raises:
        UsageError: A file that cannot be read or written, rules that cannot be used.
        SelfplayError: A tier that was asked for by name and cannot be measured.
        TooManyBadRows: More bad rows than allowed; `out` is not written then, unless it is stdout.
    """
    loaded = load_rules(rules)
    tally = _Tally()
    measurer = Measurer(
        CHOICES[tiers], {"rules": loaded.models}, optional=tiers == "auto", reads=loaded.tiers
    )  # fmt: skip

    def labelled() -> Iterator[pl.DataFrame]:
        for table in iter_turn_rows(source, quarantine):
            table = measurer(take_from_rows(table, CARRIED))
            features = compute(table)
            table = label(table, loaded, features)
            tally.add(table, features)
            yield table
        quarantine.check()

    with measurer:
        write_turn_rows(labelled(), out, ADDED)
    yield from measurer.notes
    yield from tally.report(loaded, generator, primed)
    yield from left_out(quarantine)


class _Tally:
    """What the closing lines need, gathered batch by batch."""

    def __init__(self) -> None:
        self.labels: dict[str, int] = {}
        self.seen: list[tuple[pl.DataFrame, Features]] = []
        self.rows = 0

    def add(self, table: pl.DataFrame, features: Features) -> None:
        for name, count in table["label"].value_counts().iter_rows():
            self.labels[name] = self.labels.get(name, 0) + count
        if self.rows < ESTIMATED_ROWS:
            columns = [name for name in ("conversation_id", "site_id", "model") if name in table.columns]
            self.seen.append((table.select(*columns, "genuine"), features))
        self.rows += len(table)

    def report(self, rules: Rules, generator: str | None, primed: bool) -> Iterator[str]:
        passed = self.labels.get(PASSED, 0)
        share = f" ({passed / self.rows:.0%})" if self.rows else ""
        faults = sorted(((n, name) for name, n in self.labels.items() if name != PASSED), reverse=True)
        yield f"{self.rows:,} turns, {passed:,} passed the rules{share}"
        if faults:
            yield "faults: " + ", ".join(f"{name} {n:,}" for n, name in faults)
        if not self.seen:
            return
        table = pl.concat([part for part, _ in self.seen], how="diagonal")
        features = Features.concat([part for _, part in self.seen])
        passing = table["genuine"].to_numpy()
        for name, rows in (("all turns", table["genuine"].is_not_null().to_numpy()), ("those that passed", passing)):
            if rows.any():
                yield _estimate(name, table.filter(rows), features.take(rows), rules, generator, primed)
        if self.rows > len(table):
            yield f"(estimated on the first {len(table):,} rows)"


def _estimate(
    name: str, table: pl.DataFrame, features: Features, rules: Rules, generator: str | None, primed: bool
) -> str:
    found = estimate_genuine(table, rules, generator=generator, primed=primed, features=features)
    mark = f"; extrapolated: {found.why}" if found.extrapolated else ""
    return f"estimated genuine among {name}: {found.mean:.0%} [{found.low:.0%}, {found.high:.0%}]{mark}"
