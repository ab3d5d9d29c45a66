"""Learns the weights that rank turns, from judged turns, and says how well they rank those they did not see."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from selfplay.learning.training import one_line_for, read_judged, refuse_unwritable, with_signals
from selfplay.showing.figures import console_for_figures, table_of
from selfplay.signals.measure import PARTS, STATE
from selfplay.signals.tiers import SignalModels
from selfplay.terminal import printable

if TYPE_CHECKING:
    from rerank.weights import Weights


def train(
    folder: Path,
    out: Path,
    kept: Path | None,
    models: SignalModels,
    *,
    tiers: Collection[str] = ("embedding", "state"),
    folds: int = 5,
    seed: int = 0,
) -> None:
    """Learns weights for every set of tiers whose signals are there, and prints their held-out figures.

    Args:
        folder: Judged turns, as `training.read_judged` takes them.
        kept: Parquet of measured signals, as in `training.with_signals`.
        tiers: Those that are measured where they are not kept.
        folds: Of the cross-validation by conversation that the figures come from; below 2 there are none.

    Raises:
        UsageError: A file cannot be read or written, or there is too little to learn from.
        SelfplayError: A model that was named cannot measure.
    """
    table = read_judged(folder)
    refuse_unwritable(folder, out, kept)
    folds = min(folds, table["context"].n_unique())
    table, versions = with_signals(table, kept, models, tiers)
    with one_line_for(folder):
        from rerank import save_weights
        from rerank.held_out import held_out, report, with_figures
        from rerank.learn import train as learned_from

        weights = learned_from(
            table,
            measured_with={part: versions[part] for part in PARTS.values() if part in versions},
            layer=versions.get(STATE, {}).get("layer"),
        )
        if folds > 1:
            weights = with_figures(weights, report(held_out(table, folds, seed)))
        save_weights(weights, str(out))
    show(weights, folds)


def show(weights: Weights, folds: int, console: Console | None = None) -> None:
    """Prints what the weights were learned from, and a table of the figures by tier set."""
    console = console_for_figures() if console is None else console
    measured = ", ".join(escape(printable(str(part["model"]), 60)) for part in weights.measured_with.values())
    console.print(f"{weights.training['rows']:,} judged turns; signals by {measured or 'the text tier alone'}")
    if not weights.cv:
        return
    console.print(
        f"held out by conversation, {folds} folds; AUC of follow_up, near: among follow_up, off_topic, generic"
    )
    for kind in ("sampled", "written"):
        rows = [(name, figures[kind]) for name, figures in weights.cv.items() if kind in figures]
        if not rows:
            continue
        console.print()
        columns = ("AUC near", "Spearman", "first", "random", "best")
        table = table_of(console, f"{kind} turns ranked with", *columns)
        for name, figures in rows:
            table.add_row(name, *_cells(figures))
        console.print(table)
    console.print(
        "\nfirst: how often the turn ranked first is genuine, without a filter; a random one; any of the site"
    )


def _cells(figures: Mapping[str, Any]) -> list[str]:
    names = ("auc_near", "spearman", "selected", "random", "oracle")
    return [f"{figures[name]:.3f}" if name in figures else "–" for name in names]
