"""`selfplay train`: rules, calibration and ranking weights from judged turns."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("train", epilog="Example: selfplay train filters/judged --rules rules.json --weights weights.json")
@click.argument("judged", type=click.Path(path_type=Path), metavar="JUDGED")
@click.option("--rules", type=click.Path(path_type=Path), metavar="FILE", help="Write the rule set here.")
@click.option("--weights", type=click.Path(path_type=Path), metavar="FILE", help="Write the ranking weights here.")
@click.option(
    "--signals",
    type=click.Path(path_type=Path),
    metavar="PARQUET",
    help="Keep the measured signals here, and take them from here if they are there.",
)
def command(judged: Path, rules: Path | None, weights: Path | None, signals: Path | None) -> None:
    """Learn rules, calibration and ranking weights from the judged turns in the folder JUDGED.

    JUDGED holds contexts.jsonl and judged_turns.jsonl in the form of filters/judged. Signals are measured with the
    embedded SmolLM2-135M and MiniLM; what is learned is recorded with them.
    """
    from selfplay import training

    training.train(judged, rules, weights, signals)
