"""`selfplay rank`: orders candidate turns by how grounded they are in the answer."""

from __future__ import annotations

import click

from selfplay.commands import options


@click.command(
    epilog='Example: selfplay rank turns.jsonl -o ranked.jsonl   (rows: {"id", "messages", "turn"})',
    short_help="Order candidate turns by how grounded they are in the answer.",
)
@options.turn_rows
@options.weights
@options.tiers
@click.option("--select", type=click.IntRange(1, 1024), metavar="K",
              help="Also choose up to K different turns per site: adds selected and rejected_for.")  # fmt: skip
@options.diversity
@options.bounds
def command(
    file: str, out: str, quarantine: str | None, max_bad: str | None, weights: str | None, tiers: str,
    select: int | None, diversity: float, min_groundedness: float, allow_truncated: bool,
) -> None:  # fmt: skip
    """Adds groundedness (0..1) and rank (1 = best) to each row of FILE.

    FILE holds conversations that end with the assistant's message, each with one candidate `turn`: JSONL (also .gz,
    .zst), Parquet, a dataset folder, or - for stdin. Rows of one `site_id`, or without it of equal messages, are
    ranked against each other. Rows keep their order and their other columns. Rows that already carry `genuine`,
    `p_genuine` or signals are ranked with them.
    """
    from selfplay.ranking import Choosing, rank_file

    choosing = None
    if select is not None:
        choosing = Choosing(select, diversity, min_groundedness, allow_truncated)
    elif diversity or min_groundedness or allow_truncated:
        raise click.UsageError("--diversity, --min-groundedness and --allow-truncated choose: give --select 1 too")
    with options.quarantine_beside(out, quarantine, max_bad, file) as bad:
        options.say(rank_file(file, out, weights, tiers, bad, choosing))
