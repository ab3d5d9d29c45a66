"""`selfplay train-ranker`: the weights that rank turns, from judged turns."""

from __future__ import annotations

from pathlib import Path

import click

from selfplay.commands import options


@click.command(
    "train-ranker",
    epilog="Example: selfplay train-ranker filters/judged -o weights.json --signals signals.parquet\n\n"
    "         selfplay train-ranker judged.jsonl -o weights.json --cross-encoder cross-encoder/ms-marco-MiniLM-L6-v2",
)
@options.judged
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="Write the weights here."
)
@options.signals
@options.training_scorer
@click.option(
    "--tiers",
    type=click.Choice(["text+embedding", "text+embedding+state", "all"]),
    default="text+embedding+state",
    show_default=True,
    help="Signals to measure where they are not kept; all adds the likelihoods, four passes of the scorer instead of "
    "one. Sets of tiers that --signals has are learned in any case.",
)
@click.option(
    "--cross-encoder",
    type=options.Name(),
    metavar="NAME",
    help="Also learn what this sentence-transformers CrossEncoder says, a folder or Hugging Face id.",
)
@click.option(
    "--folds",
    type=click.IntRange(0, 50),
    default=5,
    show_default=True,
    help="Of the cross-validation by conversation; 0: no figures.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws the folds.")
def command(
    judged: Path,
    out: Path,
    signals: Path | None,
    scorer_model: str | None,
    tiers: str,
    cross_encoder: str | None,
    folds: int,
    seed: int,
) -> None:
    """Learn ranking weights from the judged turns in JUDGED, and print how well they rank turns they did not see.

    JUDGED is what `selfplay train` takes. One model is learned for each set of signal tiers, so that turns can be
    ranked where a tier is missing; the file says which scorer, embedder and cross-encoder measured, and `rank` and
    `run` refuse it with others. Use it with --weights.
    """
    from selfplay.learning import ranker
    from selfplay.signals.tiers import CHOICES, SignalModels

    models = SignalModels(scorer_model, cross_encoder)
    ranker.train(judged, out, signals, models, tiers=CHOICES[tiers], folds=folds, seed=seed)
