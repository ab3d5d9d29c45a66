"""The pictures of a report. Needs matplotlib, which this file and `svg` alone use.

Series stand in panels of their own, named in words: nothing is told by colour alone.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from selfplay.report.svg import BAD, GOOD, LINE, RC, inline
from selfplay.report.tally import AtN
from selfplay.terminal import printable

PASSED = "follow_up"
PANELS = 6
WIDTH = 9.0
"""Inches; the page scales it."""


def available() -> bool:
    """Whether matplotlib is installed."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def labels(
    shares: Mapping[str, Mapping[str, float]], names: Sequence[str], said: Mapping[str, str], name: str = "labels"
) -> str:
    """Bars: the share of each label, in a panel for each group.

    Args:
        shares: By group and label, 0..1. At most `PANELS` groups are drawn.
        names: Labels, from top to bottom.
        said: What to call a label.
        name: Of the picture in the page.
    """
    shares = {printable(group): of for group, of in list(shares.items())[:PANELS]}
    groups = list(shares)
    with _matplotlib():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 0.9 + 0.28 * len(names)), layout="constrained")
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        most = max(max(of.values(), default=0.0) for of in shares.values())
        for axes, group, title in zip(panels, groups, short(groups), strict=True):
            values = [shares[group].get(name, 0.0) for name in names]
            bars = axes.barh([said.get(name, name) for name in names], values, height=0.7,
                             color=[GOOD if name == PASSED else BAD for name in names])  # fmt: skip
            axes.bar_label(bars, [f"{value:.1%}" if value else "" for value in values], padding=3, fontsize=9)
            axes.set_title(wrapped(title, 72 // len(groups)))
            axes.set_xlim(0, most * 1.4)
            axes.xaxis.set_visible(False)
            axes.spines.bottom.set_visible(False)
            axes.tick_params(length=0)
        panels[0].invert_yaxis()
        told = "; ".join(
            f"{group}: " + ", ".join(f"{said.get(n, n)} {shares[group].get(n, 0):.1%}" for n in names)
            for group in groups
        )
        return inline(figure, name, f"Share of each label. {told}")


def groundedness(counts: Mapping[str, npt.NDArray[np.int64]]) -> str:
    """Histograms of one width, in a panel for each state that has any turn, below each other."""
    shown = {state: bins for state, bins in counts.items() if bins.sum()}
    with _matplotlib():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 0.6 + 1.15 * len(shown)), layout="constrained")
        panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (state, bins) in zip(panels, shown.items(), strict=True):
            edges = np.linspace(0, 1, len(bins) + 1)
            axes.bar(edges[:-1], bins, width=np.diff(edges), align="edge", color=BAD if state == "flagged" else GOOD,
                     edgecolor=LINE, linewidth=0.5)  # fmt: skip
            mean = float((bins * (edges[:-1] + edges[1:]) / 2).sum() / bins.sum())
            axes.set_title(f"{state}: {int(bins.sum()):,} turns, mean {mean:.2f}")
            axes.set_xlim(0, 1)
            axes.locator_params(axis="y", nbins=3, integer=True)
        panels[-1].set_xlabel("groundedness")
        told = ", ".join(f"{state} {int(bins.sum())} turns" for state, bins in shown.items())
        return inline(figure, "groundedness", f"Histograms of groundedness: {told}. The figures are in the table.")


def yields(at: Mapping[int, AtN], sites: int) -> str:
    """What the first N candidates of each site gave, in panels: sites served, groundedness of the best, tokens."""
    ns = list(at)
    served = [at[n].served / sites for n in ns]
    curves: dict[str, tuple[list[float], float | None]] = {"sites with a turn to choose": (served, 1)}
    if any(one.best for one in at.values()):
        best = [at[n].best / at[n].served if at[n].served else np.nan for n in ns]
        curves["groundedness of the best"] = (best, 1)
    if any(one.tokens for one in at.values()):
        curves["tokens per site"] = ([at[n].tokens / sites for n in ns], None)
    with _matplotlib():
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter

        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        panels = figure.subplots(1, len(curves), squeeze=False)[0]
        for axes, (name, (values, top)) in zip(panels, curves.items(), strict=True):
            axes.plot(ns, values, marker="o", markersize=4, color=GOOD)
            axes.set_title(name)
            axes.set_xscale("log", base=2)
            axes.set_xticks(ns, [str(n) for n in ns])
            axes.minorticks_off()
            axes.set_xlabel("first N candidates")
            axes.set_ylim(0, top)
            axes.grid(alpha=0.6, linewidth=0.6)
            if values is served:
                axes.yaxis.set_major_formatter(PercentFormatter(1))
        return inline(figure, "yields", "Curves over N of " + ", ".join(curves) + ". The figures are in the table.")


def short(names: Sequence[str]) -> list[str]:
    """Names without the words that all begin with, where that is much."""
    common = os.path.commonprefix(list(names)) if len(names) > 1 else ""  # noqa: RUF071 - characters are meant
    common = common[: max(common.rfind(mark) for mark in " /-_:") + 1]
    return [f"… {name[len(common) :]}" for name in names] if len(common) > 8 else list(names)


def wrapped(text: str, width: int) -> str:
    """On three lines at most."""
    lines = textwrap.wrap(text, width, max_lines=3, placeholder="…")
    return "\n".join(lines)


def _matplotlib() -> Any:
    import matplotlib

    return matplotlib.rc_context(dict(RC))
