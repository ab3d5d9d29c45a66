"""`selfplay evaluate`: how good filter and ranking are, on judged turns."""

from __future__ import annotations

from pathlib import Path

import click

from selfplay.commands import options
from selfplay.errors import UsageError


@click.command(
    epilog="Example: selfplay evaluate filters/judged --signals signals.parquet -o evaluation\n\n"
    "         selfplay evaluate mine.jsonl --no-learning   (the shipped rules and weights on your turns)",
    short_help="Tell how good filter and ranking are, on judged turns.",
)
@options.judged
@options.signals
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write evaluation.json, turns.parquet, curves.png and curves.svg here.",
)
@click.option(
    "--tiers",
    type=click.Choice(["text", "text+embedding", "text+embedding+state", "all"]),
    default="text+embedding+state",
    show_default=True,
    help="Signals that filter and ranking read; text measures nothing, all adds the likelihoods. Baselines that read "
    "likelihoods are there where --signals has them.",
)
@click.option(
    "--folds", type=click.IntRange(2, 100), default=5, show_default=True, help="Conversations are split into so many."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws the folds and the bootstrap."
)
@click.option("--no-left-out", is_flag=True, help="Do not learn without each generator in turn, which takes longest.")
@click.option(
    "--no-learning",
    is_flag=True,
    help="Take rules and weights as they are: for turns that they were not learned from.",
)
@options.rules
@options.weights
def command(
    judged: Path, signals: Path | None, out: Path | None, tiers: str, folds: int, seed: int, no_left_out: bool,
    no_learning: bool, rules: str | None, weights: str | None,
) -> None:  # fmt: skip
    """Tell how often the turn that filter and rank select is genuine, against chance, baselines and the best there is.

    JUDGED is what `selfplay train` takes. Rules, calibration and weights are learned anew for each fold from the
    conversations of the others (a minute a fold for 4,000 turns), so that no turn is judged by what its conversation
    taught. Figures are of the sampled turns, with 95 % intervals by bootstrap over conversations; differences are
    paired. Then what each signal is worth, and how well turns of a generator are ranked that nothing was learned from.
    """
    if (rules or weights) and not no_learning:
        raise UsageError("--rules and --weights are for --no-learning; without it both are learned anew")
    from selfplay.evaluation.evaluating import evaluate
    from selfplay.evaluation.shown import show

    found = evaluate(
        judged, signals, out, lambda line: options.say([line]), tiers=tiers, folds=folds, seed=seed,
        learned=(rules, weights) if no_learning else None, apart=not no_left_out,
    )  # fmt: skip
    show(found)
