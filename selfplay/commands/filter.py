"""`selfplay filter`: labels candidate turns from a file, and says how many are likely genuine."""

from __future__ import annotations

import click

from selfplay.commands import options


@click.command(
    epilog="Example: selfplay filter turns.jsonl -o labelled.jsonl\n\n"
    '         zcat turns.jsonl.gz | selfplay filter - --tiers text | jq "select(.genuine)"',
)
@options.turn_rows
@options.rules
@options.tiers
@click.option("--generator", metavar="NAME", help="Model that wrote the turns, to tell whether it was judged.")
@click.option("--primed", is_flag=True, help="The turns were asked for by instruction.")
def command(
    file: str,
    out: str,
    quarantine: str | None,
    max_bad: str | None,
    rules: str | None,
    tiers: str,
    generator: str | None,
    primed: bool,
) -> None:
    """Label candidate turns and say which rule fired and why.

    FILE holds conversations that end with the assistant's message, each with one candidate `turn`: JSONL (also .gz,
    .zst), Parquet, a dataset folder, or - for stdin. Rows come out in order with label, genuine, p_genuine, rule and
    evidence added. `genuine` says that no rule fired; p_genuine estimates how likely the turn really is a follow-up.
    """
    from selfplay.filtering import filter_file

    with options.quarantine_beside(out, quarantine, max_bad, file) as bad:
        options.say(filter_file(file, out, rules, tiers, bad, generator, primed))
