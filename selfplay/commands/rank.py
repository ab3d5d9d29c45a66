"""`selfplay rank`: orders candidate turns by how grounded they are in the answer."""

from __future__ import annotations

from typing import Any

import click

from selfplay.commands import options


@click.command(
    epilog='Example: selfplay rank turns.jsonl -o ranked.jsonl   (rows: {"id", "messages", "turn"})\n\n'
    "         selfplay rank turns.jsonl -o ranked.jsonl --tiers text --explain-id turn-04",
    short_help="Order candidate turns by how grounded they are in the answer.",
)
@options.turn_rows
@options.weights
@options.tiers
@options.scorer_model
@options.cross_encoder
@click.option(
    "--explain", is_flag=True, help="Add `rank_explanation`: the signals that moved the score most, the anchors found."
)
@click.option(
    "--explain-id",
    "explain_ids",
    multiple=True,
    metavar="ID",
    help="Print on stderr all that made the score of the turn with this id; repeatable.",
)
def command(file: str, out: str, quarantine: str | None, max_bad: str | None, **how: Any) -> None:
    """Adds groundedness (0..1) and rank (1 = best) to each row of FILE.

    FILE holds conversations that end with the assistant's message, each with one candidate `turn`: JSONL (also .gz,
    .zst), Parquet, a dataset folder, or - for stdin. Rows of one `site_id`, or without it of equal messages, are
    ranked against each other. Rows keep their order and their other columns. Rows that already carry `genuine`,
    `p_genuine` or signals are ranked with them. `selfplay signals` tells what the signals are.
    """
    from selfplay.ranking import Ranking, rank_file

    with options.quarantine_beside(out, quarantine, max_bad, file) as bad:
        options.say(rank_file(file, out, Ranking(**how), bad))
