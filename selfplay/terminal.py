"""Text from files and models, made safe to show on a terminal."""

from __future__ import annotations


def printable(text: str, limit: int | None = None) -> str:
    """Escapes all that is not plain to see: control and escape characters, direction marks, lone surrogates.

    `limit` cuts what is shown to that many characters, the ellipsis included. Rich markup is not touched: give the
    result to `rich.text.Text` or `rich.markup.escape`.
    """
    shown = "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode("ascii") for ch in text[:limit])
    if limit is not None and (len(text) > limit or len(shown) > limit):
        return shown[: limit - 1] + "…"
    return shown


def one_line(text: object, limit: int = 300) -> str:
    """`printable`, of text or an error, with every run of white space and NULs as one space: fit for a message."""
    return printable(" ".join(str(text).replace("\0", " ").split()), limit)
