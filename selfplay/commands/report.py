"""`selfplay report`: one page about results, with every conversation in it."""

from __future__ import annotations

import click

from selfplay.commands import options


@click.command(
    epilog="Example: selfplay report dataset -o report.html\n\n"
    "         selfplay report cleaned --by language --sites 2000",
    short_help="Write one page with figures and every conversation, readable offline.",
)
@click.argument("folder", metavar="RUN")
@click.option("-o", "--out", default="report.html", show_default=True, metavar="FILE", help="The page.")
@options.shown
def command(folder: str, out: str, sites: int, by: tuple[str, ...]) -> None:
    """Write one page with figures and every conversation, readable offline.

    RUN is what run, clean or play has written. The page shows what came in and out, labels by model, temperature and
    source, groundedness, what more candidates bring and cost, variety; and every candidate of each conversation with
    label, rule, evidence and score, to be searched and filtered. It loads nothing from anywhere.
    """
    from selfplay.report.writing import write_report

    options.say(write_report(folder, out, sites, by))
