"""Tables of figures: ruled on a terminal; plain, and never cut to its width, in a pipe."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

WIDTH = 80


def console_for_figures() -> Console:
    """Standard output."""
    console = Console(highlight=False)
    # In a pipe nothing is cut to whatever width the shell around it happens to have.
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def print_line(console: Console, text: str = "") -> None:
    """A line of rich markup; escape what comes from files or models."""
    console.print(text, soft_wrap=not console.is_terminal)


def table_of(console: Console, *columns: str) -> Table:
    """An empty table: a column of names, and columns of figures."""
    style = box.SIMPLE_HEAD if console.is_terminal else None
    table = Table(box=style, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table
