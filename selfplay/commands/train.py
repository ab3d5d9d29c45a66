"""`selfplay train`: rules and calibration from judged turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from selfplay.commands import options


class MinPrecision(click.ParamType):  # type: ignore[type-arg]
    """`0.9`, or `identity_leakage=0.95` for one label."""

    name = "[LABEL=]P"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str | None, float]:
        from filters.labels import Label

        if isinstance(value, tuple):
            return value
        label, named, number = str(value).rpartition("=")
        labels = [label.value for label in Label if not label.genuine]
        if named and label not in labels:
            self.fail(f"no rule gives the label {label!r}; rules give {', '.join(labels)}", param, ctx)
        try:
            precision = float(number)
        except ValueError:
            self.fail(f"{value!r} is neither a precision such as 0.9 nor LABEL=0.9", param, ctx)
        if not 0 < precision < 1:
            self.fail(f"{value!r}: a precision lies between 0 and 1, and no number of turns proves 1", param, ctx)
        return (label if named else None), precision


@click.command(
    "train", epilog="Example: selfplay train filters/judged -o rules.json --min-precision identity_leakage=0.95"
)
@options.judged
@click.option(
    "-o",
    "--out",
    "--rules",
    "rules",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Write the rule set here.",
)
@options.signals
@options.training_scorer
@click.option(
    "--set",
    "only",
    type=click.Choice(["text", "full"]),
    help="Learn only this rule set; `text` measures nothing. [default: both]",
)
@click.option(
    "--min-precision",
    type=MinPrecision(),
    multiple=True,
    help="Precision that a rule is to prove, for all labels or one; repeatable. [default: 0.9]",
)
@click.option(
    "--apart",
    type=click.FloatRange(0, 0.8),
    default=0.2,
    show_default=True,
    metavar="SHARE",
    help="Conversations nothing is learned from, where rules prove their precision. 0: none is certified.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Draws the folds and the conversations kept apart.",
)
@click.option("--no-ceiling", is_flag=True, help="Do not fit boosted trees for comparison.")
def command(
    judged: Path,
    rules: Path,
    signals: Path | None,
    scorer_model: str | None,
    only: str | None,
    min_precision: tuple[tuple[str | None, float], ...],
    apart: float,
    seed: int,
    no_ceiling: bool,
) -> None:
    """Learn rules and calibration from the judged turns in JUDGED, and print how good the rules are.

    JUDGED is a folder with contexts.jsonl and judged_turns.jsonl in the form of filters/judged, or a file that
    `selfplay judge` or `selfplay annotate` wrote. Signals are measured with the embedded SmolLM2-135M and MiniLM, a
    quarter of an hour for 4,000 turns on a CPU, or with --scorer-model; what is learned is recorded with them. Ranking
    weights are learned by `selfplay train-ranker`, from the same --signals.

    Figures are of turns in conversations the figure's rules were not learned from. A rule is certified when the exact
    95 % lower bound of its precision on the conversations kept apart reaches --min-precision.
    """
    from filters.labels import Label
    from selfplay.learning import training
    from selfplay.signals.tiers import SignalModels

    wanted = {label.value: p for named, p in min_precision if named is None for label in Label}
    wanted |= {named: p for named, p in min_precision if named is not None}
    training.train(
        judged,
        rules,
        signals,
        models=SignalModels(scorer_model),
        only=only,
        min_precision=wanted,
        apart=apart,
        seed=seed,
        ceiling=not no_ceiling,
    )
