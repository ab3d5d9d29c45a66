"""`selfplay filter`: labels candidate turns from a file, and says how many are likely genuine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from selfplay.errors import SelfplayError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from filters.features import Features
    from filters.rules import RuleSet

ADDED = ("label", "genuine", "p_genuine", "rule", "evidence")
ESTIMATED_ROWS = 100_000
"""The estimate looks at this many rows at most, so that memory stays bounded."""


@click.command(
    epilog="Example: selfplay filter turns.jsonl -o labelled.jsonl\n\n"
    '         zcat turns.jsonl.gz | selfplay filter - -o - --tiers text | jq "select(.genuine)"'
)
@click.argument("file")
@click.option("-o", "--output", required=True, metavar="OUT", help="JSONL (.gz, .zst), .parquet, or - for stdout.")
@click.option("--rules", "rules_path", metavar="FILE", help="A rule set; the shipped one by default.")
@click.option(
    "--tiers",
    type=click.Choice(["auto", "text", "all"]),
    default="auto",
    show_default=True,
    help="Signals to measure: what is installed, none (text features only), or all the rules read.",
)
@click.option("--generator", metavar="NAME", help="Model that wrote the turns, to tell whether it was judged.")
@click.option("--primed", is_flag=True, help="The turns were asked for by instruction.")
@click.option(
    "--quarantine", "quarantine_path", metavar="FILE", help="Where bad rows go (default OUT.quarantine.jsonl)."
)
@click.option("--max-bad", metavar="N|P%", help="Exit with 3 when more rows are bad.")
def command(
    file: str,
    output: str,
    rules_path: str | None,
    tiers: str,
    generator: str | None,
    primed: bool,
    quarantine_path: str | None,
    max_bad: str | None,
) -> None:
    """Label candidate turns and say which rule fired and why.

    FILE holds rows {"id", "messages", "turn"} (JSONL, .gz, .zst, Parquet, or - for stdin); messages end with the
    assistant's. Rows come out in order with label, genuine, p_genuine, rule and evidence added. `genuine` says that
    no rule fired; p_genuine estimates how likely the turn really is a follow-up.
    """
    from filters import RulesError, load_rules
    from selfplay.quarantine import Quarantine
    from selfplay.turnrows import iter_turn_rows, write_turn_rows

    try:
        rules = load_rules(rules_path)
    except RulesError as error:
        raise UsageError(str(error)) from None
    if quarantine_path is None and output != "-":
        quarantine_path = f"{output}.quarantine.jsonl"
    tally = _Tally()
    with Quarantine(quarantine_path, max_bad) as quarantine:
        labelled = _label(iter_turn_rows(file, quarantine), rules, tiers, tally)
        count = write_turn_rows(labelled, output, ADDED)
        quarantine.check()
        for line in tally.report(rules, count, generator, primed):
            click.echo(line, err=True)
        if quarantine.bad:
            place = f", see {quarantine_path}" if quarantine_path else ""
            reasons = ", ".join(f"{reason} ({n})" for reason, n in quarantine.summary().items())
            click.echo(f"{quarantine.bad:,} bad rows left out{place}: {reasons}", err=True)


class _Tally:
    """What the closing lines need, gathered batch by batch."""

    def __init__(self) -> None:
        self.labels: dict[str, int] = {}
        self.notes: list[str] = []
        self.seen: list[tuple[pl.DataFrame, Features]] = []
        self.rows = 0

    def add(self, table: pl.DataFrame, features: Features) -> None:
        for name, count in table["label"].value_counts().iter_rows():
            self.labels[name] = self.labels.get(name, 0) + count
        if self.rows < ESTIMATED_ROWS:
            columns = [name for name in ("conversation_id", "site_id", "model") if name in table.columns]
            self.seen.append((table.select(*columns, "genuine"), features))
        self.rows += len(table)

    def report(self, rules: RuleSet, count: int, generator: str | None, primed: bool) -> Iterator[str]:
        yield from self.notes
        passed = self.labels.get("follow_up", 0)
        share = f" ({passed / count:.0%})" if count else ""
        faults = sorted(((n, name) for name, n in self.labels.items() if name != "follow_up"), reverse=True)
        yield f"{count:,} turns, {passed:,} passed the rules{share}"
        if faults:
            yield "faults: " + ", ".join(f"{name} {n:,}" for n, name in faults)
        if not self.seen:
            return
        import polars as pl

        from filters.features import Features

        table = pl.concat([part for part, _ in self.seen], how="diagonal")
        features = Features.concat([part for _, part in self.seen])
        passing = table["genuine"].to_numpy()
        for name, rows in (("all turns", table["genuine"].is_not_null().to_numpy()), ("those that passed", passing)):
            if rows.any():
                yield _estimate(name, table.filter(rows), features.take(rows), rules, generator, primed)
        if self.rows > len(table):
            yield f"(estimated on the first {len(table):,} rows)"


def _estimate(
    name: str, table: pl.DataFrame, features: Features, rules: RuleSet, generator: str | None, primed: bool
) -> str:
    from filters import estimate_genuine

    found = estimate_genuine(table, rules, generator=generator, primed=primed, features=features)
    mark = f"; extrapolated: {found.why}" if found.extrapolated else ""
    return f"estimated genuine among {name}: {found.mean:.0%} [{found.low:.0%}, {found.high:.0%}]{mark}"


def _label(tables: Iterator[pl.DataFrame], rules: RuleSet, tiers: str, tally: _Tally) -> Iterator[pl.DataFrame]:
    import polars as pl

    from filters import label
    from filters.features import SIGNALS, compute
    from selfplay.turnrows import take_from_rows

    carried: dict[str, Any] = {signal.name: pl.Float64() for signal in SIGNALS}
    carried |= {"conversation_id": pl.String(), "model": pl.String()}
    measured = frozenset({"text"}) if tiers == "text" else rules.tiers
    for table in tables:
        table = take_from_rows(table, carried)
        if tiers == "text":
            table = table.drop([signal.name for signal in SIGNALS], strict=False)
        elif measured - {"text"}:
            table = _measure(table, rules, tiers, tally)
        features = compute(table)
        table = label(table, rules, features)
        tally.add(table, features)
        yield table


def _measure(table: pl.DataFrame, rules: RuleSet, tiers: str, tally: _Tally) -> pl.DataFrame:
    """Adds the signals that the rules read and the rows lack; what cannot be measured is said once."""
    from selfplay.measure import available_tiers, measure, missing_tiers

    wanted = rules.tiers & set(missing_tiers(table))
    available, why_not = available_tiers()
    for tier in sorted(wanted - available):
        if tiers == "all":
            raise SelfplayError(f"cannot measure the {tier} tier: {why_not.get(tier, 'not available')}")
        _note(tally, f"without the {tier} tier: {why_not.get(tier, 'not available')}")
    for tier in sorted(wanted & available):
        try:
            table = measure(table, {tier})
        except SelfplayError as error:
            if tiers == "all":
                raise
            _note(tally, f"without the {tier} tier: {error}")
    return table


def _note(tally: _Tally, text: str) -> None:
    if text not in tally.notes:
        tally.notes.append(text)
