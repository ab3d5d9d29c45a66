"""What `selfplay signals` prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.text import Text

from rerank.catalogue import CATALOGUE, TIERS, Signal
from selfplay.errors import UsageError
from selfplay.pages import Page
from selfplay.terminal import printable


def chosen(names: Sequence[str]) -> list[Signal]:
    """Those whose name or tier is among `names`; all for none.

    Raises:
        UsageError: A name that is neither.
    """
    known = {each.name for each in CATALOGUE} | TIERS.keys()
    for name in names:
        if name not in known:
            raise UsageError(f"no signal or tier {printable(name, 60)!r}; tiers are {', '.join(TIERS)}")
    return [each for each in CATALOGUE if not names or {each.name, each.tier} & {*names}]


def show(names: Sequence[str], as_json: bool) -> None:
    """Prints the signals that `chosen` gives, by tier.

    Raises:
        UsageError: A name that is neither signal nor tier.
    """
    found = chosen(names)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=1, ensure_ascii=False))
        return
    page = Page()
    for tier, made_of in TIERS.items():
        those = [each for each in found if each.tier == tier]
        if not those:
            continue
        page.line(Text.assemble((f"{tier}: ", "bold"), made_of), hang=2)
        for each in those:
            page.line()
            page.line(Text.assemble((each.name, "bold cyan"), f"  {each.range}"), indent=2)
            page.line(Text(each.meaning), indent=4, hang=4)
            for label, text in (("source", each.source), ("cost", each.cost), ("weakness", each.weakness)):
                page.line(Text.assemble((f"{label}: ", "dim"), text), indent=4, hang=4)
        page.line()
