"""Lines for a person: wrapped under their indent on a terminal, plain and whole in a pipe."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text


class Page:
    """Standard output. Text must be safe to show already (`selfplay.terminal.printable`)."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = Console(highlight=False) if console is None else console

    def line(self, text: Text | str = "", indent: int = 0, hang: int = 0) -> None:
        """One line; where it must be broken, what follows begins `hang` further in than `indent`."""
        text = text if isinstance(text, Text) else Text(text)
        if not self.console.is_terminal:
            self.console.print(Text(" " * indent) + text, soft_wrap=True)
            return
        room = max(20, self.console.width - indent - hang)
        first, *rest = _broken(text, self.console, room + hang, room)
        self.console.print(Padding(first, (0, 0, 0, indent)))
        for each in rest:
            self.console.print(Padding(each, (0, 0, 0, indent + hang)))


def _broken(text: Text, console: Console, first: int, rest: int) -> list[Text]:
    """The text in pieces of at most these widths."""
    lines = text.wrap(console, first)
    if len(lines) < 2 or first == rest:
        return list(lines) or [Text("")]
    left = text[len(lines[0].plain) :]
    return [lines[0], *left[len(left.plain) - len(left.plain.lstrip()) :].wrap(console, rest)]
