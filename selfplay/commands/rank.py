"""`selfplay rank`: orders candidate turns by how grounded they are in the answer."""

from __future__ import annotations

from typing import Any

import click

from selfplay.commands import judge_options, options


@click.command(
    epilog='Example: selfplay rank turns.jsonl -o ranked.jsonl   (rows: {"id", "messages", "turn"})',
    short_help="Order candidate turns by how grounded they are in the answer.",
)
@options.turn_rows
@options.weights
@options.tiers
@options.scorer_model
@options.cross_encoder
@click.option("--control", is_flag=True,
              help="Also measure answer_pmi_swapped: answer PMI against another site's answer.")  # fmt: skip
@click.option(
    "--explain", is_flag=True, help="Add `rank_explanation`: the signals that moved the score most, the anchors found."
)
@click.option("--explain-id", "explain_ids", multiple=True, metavar="ID",
              help="Print on stderr all that made the score of the turn with this id; repeatable.")  # fmt: skip
@click.option("--select", type=click.IntRange(1, 1024), metavar="K",
              help="Also choose up to K different turns per site: adds selected and rejected_for.")  # fmt: skip
@options.diversity
@options.bounds
@judge_options.ranking
def command(
    file: str, out: str, quarantine: str | None, max_bad: str | None, weights: str | None, tiers: str,
    scorer_model: str | None, cross_encoder: str | None, control: bool, explain: bool, explain_ids: tuple[str, ...],
    select: int | None, diversity: float, min_groundedness: float, allow_truncated: bool, **judging: Any,
) -> int | None:  # fmt: skip
    """Adds groundedness (0..1) and rank (1 = best) to each row of FILE.

    FILE holds conversations that end with the assistant's message, each with one candidate `turn`: JSONL (also .gz,
    .zst), Parquet, a dataset folder, or - for stdin. Rows of one `site_id`, or without it of equal messages, are
    ranked against each other. Rows keep their order and their other columns. Rows that already carry `genuine`,
    `p_genuine` or signals are ranked with them. `selfplay signals` tells what the signals are.

    With --judge MODEL, a language model then orders the best survivors of each site anew: judge_grade and judge_label
    (pointwise) or judge_wins (pairwise) are added, rank follows them, and where the judge gave no valid answer the
    ranking stays as it was. Verdicts are kept by content and never paid twice; `selfplay judge` shares them. Exit
    codes: 1 some questions got no answer, 4 the cost limit was reached, 130 interrupted; the rows are written all the
    same.
    """
    from selfplay.ranking import Choosing, Ranking, rank_file

    how = Ranking(weights, tiers, scorer_model, cross_encoder, control, explain, explain_ids)
    choosing = None
    if select is not None:
        choosing = Choosing(select, diversity, min_groundedness, allow_truncated)
    elif diversity or min_groundedness or allow_truncated:
        raise click.UsageError("--diversity, --min-groundedness and --allow-truncated choose: give --select 1 too")
    with (
        options.quarantine_beside(out, quarantine, max_bad, file) as bad,
        judge_options.reranking(judging, (file, quarantine, weights), out) as judge,
    ):
        options.say(rank_file(file, out, how, bad, choosing, judge))
    return judge_options.ended(judge)
