"""`selfplay filter`: labels candidate turns from a file, keeps those asked for, and says how many are genuine."""

from __future__ import annotations

from typing import Any

import click

from selfplay.commands import options


@click.command(
    epilog="Example: selfplay filter turns.jsonl -o kept.jsonl --keep follow_up --keep-above 0.5\n\n"
    '         zcat turns.jsonl.gz | selfplay filter - --rules text | jq "select(.genuine)"',
    short_help="Label candidate turns and say which rule fired and why.",
)
@options.turn_rows
@click.option(
    "--rules",
    metavar="text|full|FILE",
    help="A set of the shipped rules, or your own file. [default: the shipped ones, full where the signals can be had]",
)
@options.tiers
@options.scorer_model
@click.option(
    "--drop", multiple=True, metavar="LABELS", help="Reject turns with one of these labels, e.g. malformed,generic."
)
@click.option("--keep", multiple=True, metavar="LABELS", help="Reject all but turns with one of these labels.")
@click.option(
    "--keep-above", "above", type=click.FloatRange(0, 1), metavar="P", help="Reject turns whose p_genuine is below P."
)
@click.option("--rejects", metavar="FILE", help="Where rejected rows go. [default: OUT.rejects.jsonl]")
@click.option(
    "--explain", is_flag=True, help="Add `explanation`: the rule with its values, what the label's score is made of."
)
@click.option("--generator", metavar="NAME", help="Model that wrote the turns, to tell whether it was judged.")
@click.option("--primed", is_flag=True, help="The turns were asked for by instruction.")
def command(
    file: str,
    out: str,
    quarantine: str | None,
    max_bad: str | None,
    drop: tuple[str, ...],
    keep: tuple[str, ...],
    above: float | None,
    **how: Any,
) -> None:
    """Label candidate turns, say which rule fired and why, and keep those you ask for.

    FILE holds conversations that end with the assistant's message, each with one candidate `turn`: JSONL (also .gz,
    .zst), Parquet, a dataset folder, or - for stdin. Rows come out in order with label, genuine, p_genuine, rule,
    evidence and rule_set added. `genuine` says that no rule fired; p_genuine estimates how likely the turn really is
    a follow-up. Rows that --drop, --keep or --keep-above reject go to another file with `rejected_for`.
    """
    from selfplay.filtering import Filtering, filter_file
    from selfplay.keeping import keeping

    settings = Filtering(keeping=keeping(drop, keep, above), **how)
    with options.quarantine_beside(out, quarantine, max_bad, file) as bad:
        options.say(filter_file(file, out, settings, bad))
