"""`selfplay rank`: orders candidate turns by how grounded they are in the answer."""

from __future__ import annotations

import click

TIER_CHOICES = ("auto", "text", "text+embedding", "all")


@click.command(
    epilog='Example: selfplay rank turns.jsonl -o ranked.jsonl   (rows: {"id", "messages", "turn"})',
    short_help="Order candidate turns by how grounded they are in the answer.",
)
@click.argument("file")
@click.option("-o", "--output", default="-", metavar="FILE", help="Where the rows go; - (default) is stdout.")
@click.option("--weights", metavar="FILE", help="Weights of `selfplay train`; the shipped ones if not given.")
@click.option(
    "--tiers",
    type=click.Choice(TIER_CHOICES),
    default="auto",
    show_default=True,
    help="Signals to rank by; auto takes all that are in the file or that this install can measure.",
)
@click.option("--quarantine", metavar="FILE", help="Where bad rows go; by default they are counted only.")
@click.option("--max-bad", metavar="N|N%", help="End with exit code 3 when more rows are bad.")
def command(
    file: str, output: str, weights: str | None, tiers: str, quarantine: str | None, max_bad: str | None
) -> None:
    """Adds groundedness (0..1) and rank (1 = best) to each row of FILE.

    FILE is JSONL (.gz, .zst, - for stdin) or Parquet; each row has the messages so far, ending with the assistant's,
    and one candidate turn. Rows with equal messages are one site and ranked against each other. Rows keep their
    order and their other columns. Rows that already carry `genuine`, `p_genuine` or signals are ranked with them.
    """
    from selfplay.ranking import rank_file

    for line in rank_file(file, output, weights, tiers, quarantine, max_bad):
        click.echo(line, err=True)
