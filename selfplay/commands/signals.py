"""`selfplay signals`: what each signal is."""

from __future__ import annotations

import click


@click.command(epilog="Example: selfplay signals answer_pmi\n\n         selfplay signals --json | jq -r .[].name")
@click.argument("names", nargs=-1, metavar="[SIGNAL...]")
@click.option("--json", "as_json", is_flag=True, help="A JSON list instead of text.")
def command(names: tuple[str, ...], as_json: bool) -> None:
    """Tell what the signals are that turns are ranked by: source, cost, range and weakness.

    All of them, or those whose name or tier is given. Signals of the text tier are computed while ranking; those of
    the other tiers are columns that `rank`, `filter` and `run` measure and write.
    """
    from selfplay.showing import signals as signals_shown

    signals_shown.show(names, as_json)
