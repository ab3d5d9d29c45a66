"""The curves of an evaluation as a picture. Needs matplotlib, which only this file imports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfplay.atomic import replacing
from selfplay.evaluation.scores import OURS

SHOWN: Mapping[str, Mapping[str, Any]] = {
    "oracle": {"color": "0.35", "linestyle": "--"},
    OURS: {"color": "#0072b2", "linewidth": 2.5},
    "answer PMI": {"color": "#d55e00"},
    "MiniLM cosine": {"color": "#009e73"},
    "lowest perplexity": {"color": "#cc79a7"},
    "longest": {"color": "#e69f00"},
    "random": {"color": "0.35", "linestyle": ":"},
}
"""Curves in the order of the legend, in colours that the colour-blind can tell apart (Okabe & Ito 2008)."""
BANDS = (OURS, "oracle")


def plot(selection: Mapping[str, Any], out: Path) -> None:
    """Writes `curves.png` and `curves.svg` into `out`: share genuine of the selected turn by number of candidates.

    Args:
        selection: As `report.selection_of` gives it.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    ns = selection["n"][:-1]
    # No pyplot: it would look for a display, and keep every figure alive. A fixed salt makes the SVG repeatable.
    with matplotlib.rc_context({"svg.hashsalt": "selfplay", "font.size": 10}):
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.subplots()
        for name, style in SHOWN.items():
            if name not in selection["curves"]:
                continue
            value, low, high = zip(*selection["curves"][name][:-1], strict=True)
            axes.plot(ns, value, label=name, marker="o", markersize=3, **style)
            if name in BANDS:
                axes.fill_between(ns, low, high, color=style["color"], alpha=0.15, linewidth=0)
        axes.set_xlabel("candidates per site, N")
        axes.set_ylabel("selected turn is genuine")
        axes.set_title(f"Best of N: {selection['turns']:,} sampled turns at {selection['sites']:,} sites", fontsize=11)
        if ns and ns[-1] > 16:
            axes.set_xscale("log", base=2)
        axes.set_xticks(ns if len(ns) <= 12 else [n for n in ns if n & (n - 1) == 0], minor=False)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.25)
        axes.legend(loc="upper left", frameon=False, ncols=2)
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            with replacing(out / f"curves.{kind}") as path:
                figure.savefig(path, format=kind, dpi=150, metadata=metadata)
