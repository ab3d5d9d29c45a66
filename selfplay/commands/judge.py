"""`selfplay judge`: labels and grades candidate turns by a language model that reads the rubric."""

from __future__ import annotations

from typing import Any

import click

from selfplay.commands import judge_options, options
from selfplay.errors import UsageError


@click.command(
    epilog="Example: selfplay judge turns.jsonl -o judged.jsonl --model gpt-5-mini --max-cost 2 --price-in 0.25 "
    "--price-out 2\n\n"
    "         selfplay judge turns.jsonl -o judged.jsonl --model Qwen/Qwen3-32B --base-url http://gpu1:8000/v1",
    short_help="Have language models judge candidate turns by the rubric.",
)
@options.turn_rows
@click.option("--model", "models", multiple=True, required=True, metavar="NAME", help="Judge; repeat for several.")
@judge_options.asking
@click.option("--limit", type=click.IntRange(min=1), help="At most so many turns.")
def command(
    file: str,
    out: str,
    quarantine: str | None,
    max_bad: str | None,
    models: tuple[str, ...],
    limit: int | None,
    **asking: Any,
) -> int | None:  # fmt: skip
    """Have language models judge candidate turns by the rubric.

    FILE holds conversations that end with the assistant's message, each with one candidate `turn`: JSONL (also .gz,
    .zst), Parquet, a dataset folder, or - for stdin. One row comes out for each turn and judge, in order, with judge,
    label, groundedness (0 to 3), reason and judge_error added; an answer that is not valid has no label and says why.
    Verdicts are kept by content: the same command goes on where it stopped, and asks nothing twice. Exit codes: 0 all
    judged (invalid answers included), 1 some got no answer, 4 the cost limit was reached, 130 interrupted.
    """
    from selfplay.judge.panel import Panel, ended, judge_file

    if not all(model.strip() for model in models):
        raise UsageError("--model is empty; give the name that the server knows the judge by")
    if len(set(models)) < len(models):
        raise UsageError("--model names a judge twice")
    with (
        options.quarantine_beside(out, quarantine, max_bad, file) as bad,
        judge_options.opened(models, (file, quarantine), out, asking) as asker,
    ):
        panel = Panel(asker)
        options.say(judge_file(panel, file, out, bad, limit))
        options.say(asker.report())
    if panel.interrupted:
        options.say(["stopped; the same command goes on"])
        return 130
    ended(asker)
    return None
