"""Rows of a file that is one JSON array, as many ShareGPT sets are: elements one at a time, never the whole."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO

from selfplay.inputs.formats import DAMAGE
from selfplay.inputs.quarantine import ROW_CHARS, BadRow
from selfplay.inputs.strict_json import MAX_LINE, Row, parse_text

CHUNK = 1 << 20
_SKIP = re.compile(r"[ \t\r\n]*")
_STRING_END = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_STOP = re.compile(r'["\[\]{},]')


class _Broken(Exception):
    """Nothing more can be read; its text is the reason."""


class _Text:
    """A window on the text: `buffer[at:]` is not consumed yet."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self.buffer = ""
        self.at = 0
        self.ended = False

    def more(self) -> None:
        """Drops what is consumed and reads on; sets `ended` where there is no more."""
        try:
            data = self._stream.read(CHUNK)
            text = self._decode(data, not data)
        except DAMAGE as error:
            raise _Broken(f"damaged file: {error}; what follows is lost") from None
        except UnicodeDecodeError as error:
            raise _Broken(f"not UTF-8: byte {error.object[error.start]:#04x}; what follows is lost") from None
        self.ended = not data
        self.buffer = self.buffer[self.at :] + text
        self.at = 0

    def next(self) -> str:
        """The next character that is no space, not consumed; empty at the end."""
        while True:
            self.at = _SKIP.match(self.buffer, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.buffer) or self.ended:
                return self.buffer[self.at : self.at + 1]
            self.more()


def array_rows(stream: IO[bytes]) -> Iterator[Row]:
    """Yields the elements, numbered from 1.

    A bad element is a problem of its own as long as its brackets close; where they do not, or the file is damaged,
    what follows cannot be told apart, and one last problem says so.
    """
    text = _Text(stream)
    number = 1
    with stream:
        try:
            text.next()
            text.at += 1
            if text.next() == "]":
                return
            while True:
                yield _row(number, _element(text))
                number += 1
                follows = text.next()
                text.at += 1
                if follows == "]":
                    break
                if follows != ",":
                    raise _Broken("broken JSON: the array is cut off" if not follows else _between(follows))
            if text.next():
                raise _Broken("broken JSON: text after the end of the array")
        except _Broken as broken:
            yield Row(number, problem=str(broken), raw=text.buffer[text.at : text.at + ROW_CHARS])


def _between(found: str) -> str:
    return f"broken JSON: {found!r} where a comma belongs; what follows is lost"


def _row(number: int, element: str) -> Row:
    raw = element[:ROW_CHARS]
    try:
        return Row(number, parse_text(element), raw=raw)
    except json.JSONDecodeError as error:
        problem = f"broken JSON: {error.msg} at character {error.pos + 1} of the element"
    except BadRow as error:
        problem = str(error)
    return Row(number, problem=problem, raw=raw)


def _element(text: _Text) -> str:
    """Text of the next element, up to the comma or bracket that ends it; only strings and brackets are looked at."""
    text.next()
    depth, scan = 0, text.at
    while True:
        end = _ends(text.buffer, scan, depth)
        if isinstance(end, int):
            element, text.at = text.buffer[text.at : end], end
            return element
        scan, depth = end
        if text.ended:
            if depth == 0 and scan == len(text.buffer) and text.next():
                element, text.at = text.buffer[text.at :], scan
                return element
            raise _Broken("broken JSON: the array is cut off")
        if len(text.buffer) - text.at > MAX_LINE:
            raise _Broken(f"line too long: an element of more than {MAX_LINE >> 20} MiB, or one that never closes")
        offset = scan - text.at
        text.more()
        scan = text.at + offset


def _ends(buffer: str, at: int, depth: int) -> int | tuple[int, int]:
    """Where the element ends, or (position, depth) to go on from when there is more text."""
    while found := _STOP.search(buffer, at):
        mark, start = found.group(), found.start()
        if mark == '"':
            string = _STRING_END.match(buffer, start + 1)
            if not string:
                return start, depth
            at = string.end()
            continue
        if depth == 0 and mark in ",]}":
            return start
        depth += (mark in "[{") - (mark in "]}")
        at = start + 1
    return len(buffer), depth
