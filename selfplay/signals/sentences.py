"""Cuts an answer into sentences, whatever its language, without a model.

Good enough to ask which part of an answer a turn is near to; it does not know abbreviations of any language beyond
single letters and a few English ones, and a formula or a table row counts as a sentence.
"""

from __future__ import annotations

import re

_FENCE = re.compile(r"^\s*(```|~~~)")
_MARKER = re.compile(r"^\s*(?:#{1,6}\s+|>\s*|[-*+•‣·]\s+|\(?\d{1,3}[.)]\s+|\(?[a-zA-Z][.)]\s+|\|)*")
# A western full stop ends a sentence only before white space; the others do so anywhere.
_END = re.compile(
    r"(?:(?<=[.!?…])|(?<=[.!?…][\"'”’»)\]*_])|(?<=[.!?…][*_]{2}))\s+|(?<=[。！？｡．؟۔।॥])(?![\"'”’»」』）)])\s*"
)
_ABBREVIATION = re.compile(r"(?:^|[\s(])(?:[^\W\d_]|e\.g|i\.e|etc|vs|cf|approx|Mr|Mrs|Ms|Dr|Prof|St|No|Fig|Eq)\.$")
_WORD = re.compile(r"\w")


def sentences(text: str) -> list[str]:
    """Splits a text into sentences, list items and whole code blocks, in order.

    Pieces without a letter or digit are left out; a text that has none but those comes back as one piece, and an
    empty one as none.
    """
    pieces: list[str] = []
    code: list[str] | None = None
    for line in text.splitlines():
        if _FENCE.match(line):
            if code is not None:
                pieces.append("\n".join(code))
                code = None
            else:
                code = []
        elif code is not None:
            code.append(line)
        else:
            pieces += _split_line(_MARKER.sub("", line, count=1))
    if code is not None:  # a fence that was never closed, as in an answer cut at its limit
        pieces.append("\n".join(code))
    kept = [piece.strip() for piece in pieces if _WORD.search(piece)]
    return kept or ([text.strip()] if text.strip() else [])


def _split_line(line: str) -> list[str]:
    out: list[str] = []
    start = 0
    for end in _END.finditer(line):
        if end.start() == 0 or _ABBREVIATION.search(line[start : end.start()]):
            continue
        out.append(line[start : end.start()])
        start = end.end()
    out.append(line[start:])
    return out
