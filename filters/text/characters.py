"""Classes of characters as lookup tables over code points, for text that is looked at as an array."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

(
    OTHER, LATIN, LETTER, UNSPACED, DIGIT, MARK, UNSPACED_MARK, UNDERSCORE, SPACE, NEWLINE, APOSTROPHE, INVISIBLE,
    END, QUESTION, BACKTICK, QUOTE, OPEN_ROUND, CLOSE_ROUND, OPEN_SQUARE, CLOSE_SQUARE, OPEN_CURLY, CLOSE_CURLY,
    OPEN_QUOTE, CLOSE_QUOTE, OPEN_CORNER, CLOSE_CORNER,
) = range(26)  # fmt: skip
"""Those of characters in words, `LATIN` to `UNSPACED_MARK`, stand together, and letters among them."""
CLASSES = 32
"""More than there are, a power of two."""

_SIGNS = {
    "_": UNDERSCORE, "\n": NEWLINE, "'": APOSTROPHE, "’": APOSTROPHE, ".": END, "!": END, "।": END, "。": END,
    "?": QUESTION, "؟": QUESTION, "`": BACKTICK, '"': QUOTE, "(": OPEN_ROUND, ")": CLOSE_ROUND, "[": OPEN_SQUARE,
    "]": CLOSE_SQUARE, "{": OPEN_CURLY, "}": CLOSE_CURLY, "“": OPEN_QUOTE, "”": CLOSE_QUOTE, "「": OPEN_CORNER,
    "」": CLOSE_CORNER,
}  # fmt: skip
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003134f]"
)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
_PLANE = 0x10000


def kind(char: str) -> int:
    """The class of one character.

    Marks below U+2000 belong to the word they stand in (Hindi and Thai vowels); variation selectors of emoji do not.
    """
    code = ord(char)
    if char in _SIGNS:
        return _SIGNS[char]
    if char.isalpha():
        if _UNSPACED.match(char):
            return UNSPACED
        return LATIN if code < 0x250 or 0x1E00 <= code < 0x1F00 else LETTER
    if char.isalnum():
        return UNSPACED_MARK if _UNSPACED.match(char) else DIGIT
    if char.isspace():
        return SPACE
    if _INVISIBLE.match(char):
        return INVISIBLE
    if code < 0x2000 and unicodedata.category(char).startswith("M"):
        return UNSPACED_MARK if _UNSPACED.match(char) else MARK
    return OTHER


def fold(char: str) -> str:
    """Casefolded, where that is one character."""
    folded = char.casefold()
    return folded if len(folded) == 1 else char


@cache
def _tables() -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    chars = [chr(code) for code in range(_PLANE)]
    return (
        np.fromiter(map(kind, chars), np.uint8, _PLANE),
        np.fromiter((ord(fold(char)) for char in chars), np.uint64, _PLANE),
    )


def codes_of(text: str) -> NDArray[np.uint32]:
    """Code points, shape (len(text),)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def kinds(codes: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """The class of every code point."""
    table = _tables()[0]
    beyond = np.flatnonzero(codes >= _PLANE)
    if not beyond.size:
        return table.take(codes)
    result = table[np.minimum(codes, _PLANE - 1)]
    rare, inverse = np.unique(codes[beyond], return_inverse=True)
    result[beyond] = np.array([kind(chr(code)) for code in rare], dtype=np.uint8)[inverse]
    return result


def folded(codes: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Casefolded code points; those beyond the basic plane, hardly any of which has a case, stay."""
    table = _tables()[1]
    if not codes.size or int(codes.max()) < _PLANE:
        return table.take(codes)
    return np.where(codes < _PLANE, table[np.minimum(codes, _PLANE - 1)], codes.astype(np.uint64))
