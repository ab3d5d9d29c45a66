"""`selfplay rules explain`: what each rule asked about one turn, and what it found."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import closing
from typing import Any

import polars as pl
from rich.text import Text

from filters import label
from filters.explain import TOP, Said, contributions, explain, likelihood, told
from filters.features import Features, compute
from filters.labels import Label
from filters.rules import RuleSet
from filters.scores import score_name
from filters.wording import condition, valued
from selfplay.errors import UsageError
from selfplay.filtering import CARRIED, chosen_rules
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.turnrows import iter_turn_rows, left_out, take_from_rows
from selfplay.pages import Page
from selfplay.signals.tiers import CHOICES, Measurer
from selfplay.terminal import one_line, printable

TAIL = 3
"""Messages of the conversation that are shown."""
SHOWN = 600
"""Characters of each."""


def explain_row(source: str, key: str | None, row: int | None, rules: str | None, tiers: str, everything: bool) -> None:
    """Prints what the rules say about one turn of a file.

    Args:
        key: Id of the row; None takes the row at place `row`, counted from 1 (None is the first).
        rules, tiers: As `selfplay filter` takes them.
        everything: Also the rules after the one that decided.

    Raises:
        UsageError: No such row, a file that cannot be read, rules that cannot be used.
        SelfplayError: A tier that was asked for by name and cannot be measured.
    """
    if key is not None and row is not None:
        raise UsageError("--id and --row: give one of them")
    loaded, tiers = chosen_rules(rules, tiers)
    table = find_row(source, key, row)
    measuring = Measurer(
        CHOICES[tiers],
        {"rules": loaded.models},
        optional=tiers == "auto",
        reads=loaded.tiers,
        layer=loaded.layer,
    )
    with measuring as measurer:
        table = measurer(take_from_rows(table, CARRIED))
    features = compute(table)
    found = label(table, loaded, features).row(0, named=True)
    rules_of = loaded.sets[found["rule_set"]]
    features = rules_of.prepare(features)
    said = explain(rules_of, features, 0, found["turn"] or "", found["history"] or [], found["answer"] or "")
    page = Page()
    for note in measurer.notes:
        page.line(Text(printable(note), style="yellow"))
    _turn(page, found)
    _rules(page, said, everything)
    _scores(page, rules_of, features, everything)


def find_row(source: str, key: str | None, row: int | None) -> pl.DataFrame:
    """The one row asked for, as a table.

    Raises:
        UsageError: There is none.
    """
    wanted = row or 1
    first: list[str] = []
    seen = 0
    with Quarantine() as quarantine, closing(_tables(source, quarantine)) as tables:
        for table in tables:
            if key is None and wanted <= seen + len(table):
                return table[wanted - seen - 1 : wanted - seen]
            if key is not None and len(found := table.filter(pl.col("id") == key)):
                return found[:1]
            seen += len(table)
            first += [printable(str(name), 60) for name in table["id"].drop_nulls().head(3 - len(first))]
        bad = "".join(f"; {line}" for line in left_out(quarantine))
    if key is None:
        raise UsageError(f"{source}: no row {wanted}; there are {seen:,}{bad}")
    ids = f"the first ones are {', '.join(first)}" if first else "no row has one"
    raise UsageError(f"{source}: no row with id {printable(key, 60)}; {ids}{bad}")


def _tables(source: str, quarantine: Quarantine) -> Generator[pl.DataFrame, None, None]:
    yield from iter_turn_rows(source, quarantine, batch=500)


def _turn(page: Page, found: dict[str, Any]) -> None:
    given = json.loads(found["messages"]) if found["messages"] else [
        *({"role": "user", "content": text} for text in found["history"] or []),
        {"role": "assistant", "content": found["answer"]},
    ]  # fmt: skip
    if len(given) > TAIL:
        page.line(Text(f"({len(given) - TAIL} earlier messages)", style="dim"))
    for message in given[-TAIL:]:
        _named(page, one_line(message["role"], 20), Text(one_line(message["content"], SHOWN)))
    _named(page, "turn", Text(one_line(found["turn"], SHOWN), style="bold"))
    page.line()
    decided = "no rule fired" if found["rule"] is None else f"by the rule {printable(found['rule'])}"
    _named(page, "label", Text.assemble((found["label"], "bold"), f", {decided}"))
    p = found["p_genuine"]
    if p is not None and p == p:
        _named(page, "p_genuine", Text(f"{p:.2f}"))
    _named(page, "rule set", Text(found["rule_set"]))


def _named(page: Page, name: str, text: Text) -> None:
    page.line(Text.assemble((f"{name:10} ", "dim"), text), hang=11)


def _rules(page: Page, said: list[Said], everything: bool) -> None:
    for each in said:
        mark = "decides" if each.decides else "fires" if each.fired else "" if each.rule.enabled else "switched off"
        page.line()
        page.line(
            Text.assemble(
                f"{each.place + 1:2}. {printable(each.rule.name)} → {each.rule.label.value}",
                (f"  {mark}" if mark else "", "bold green" if each.fired else "yellow"),
            )
        )
        for tested in each.tests:
            words = f'  "{printable(tested.quote)}"' if tested.quote else ""
            page.line(
                Text.assemble(
                    ("held  ", "green") if tested.held else ("no    ", "red"),
                    f"{condition(tested.test)}: {valued(tested.test.feature, tested.value)}",
                    (words, "cyan"),
                ),
                indent=4,
                hang=6,
            )
        if each.decides and not everything:
            break


def _scores(page: Page, rules: RuleSet, prepared: Features, everything: bool) -> None:
    found = {each: contributions(rules, prepared, 0, each) for each in Label}
    if not any(found.values()):
        return
    page.line()
    page.line(Text("Scores, and what adds to them against an average turn", style="bold"))
    width = max(len(each.value) for each in found)
    scores = {each: float(prepared.values[score_name(each)][0]) for each in found}
    for each, score in sorted(scores.items(), key=lambda entry: -entry[1]):
        adds = ", ".join(map(told, found[each] if everything else found[each][:TOP]))
        page.line(
            Text.assemble(f"{each.value:{width}}  ", (f"{score:.2f}", "bold"), f"  {adds}"), indent=4, hang=width + 8
        )
    p, entries = float(prepared.values["p_genuine"][0]), likelihood(rules, prepared, 0)
    if entries:
        adds = ", ".join(map(told, entries if everything else entries[:TOP]))
        page.line()
        page.line(Text("p_genuine before the bound that a rule sets, and what adds to its linear part", style="bold"))
        page.line(
            Text.assemble(f"{Label.FOLLOW_UP.value:{width}}  ", (f"{p:.2f}", "bold"), f"  {adds}"),
            indent=4,
            hang=width + 8,
        )
