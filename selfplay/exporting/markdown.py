"""Markdown in which text from outside shows as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence

from selfplay.terminal import one_line

CELL = 200
"""Characters of a name that are shown."""


def code(text: object) -> str:
    """Text from outside as Markdown that shows it as it is: a code span, in which nothing is markup, link or HTML."""
    shown = one_line(text, CELL)
    if not shown:
        return "(empty)"
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    # A bar would end the cell of a table, in a code span too.
    return f"{fence}{pad}{shown}{pad}{fence}".replace("|", "\\|")


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], figures_from: int | None = None, figures_to: int | None = None
) -> str:
    """A Markdown table; columns from `figures_from` up to `figures_to` stand to the right."""
    right = range(len(head))[figures_from:figures_to] if figures_from is not None else range(0)
    rule = ["--:" if place in right else "---" for place in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))
