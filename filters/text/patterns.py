"""The cue patterns as polars counts them, a whole column at a time in linear time (Rust's regex crate).

That crate is fast only where a word's edge can be told from ASCII alone. So letters beyond ASCII are spelled out in
both text and pattern: `é` becomes `_000e9`, all of it word characters.
"""

from __future__ import annotations

import re
from functools import cache

_HEAD, _TAIL, _START = r"(?<!\w)", r"(?!\w)", r"(?:^|(?<=[\n.!?。！？]))"
_GAP = re.compile(r"\[\^([^\]]*)\](\{0,\d+\})")


class _Spelling(dict[int, str]):
    """For `str.translate`: what stands for a character."""

    def __missing__(self, code: int) -> str:
        self[code] = spelled = f"_{code:05x}" if code > 127 and chr(code).isalnum() else chr(code)
        return spelled


_SPELLING = _Spelling()
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


def spell(text: str) -> str:
    """ASCII word characters for all letters and digits."""
    return text if text.isascii() else _BEYOND_ASCII.sub(lambda found: found.group().translate(_SPELLING), text)


@cache
def counted(pattern: re.Pattern[str], opening: bool = False) -> str:
    """The same pattern for spelled text, in the syntax of polars; `opening` ties it to the start of the text."""
    source = pattern.pattern
    source = source.replace(_START, "^" if opening else r"(?:^|[\n.!?。！？])")
    source = source.replace(r"\b", r"(?-u:\b)")
    source = source.replace(_HEAD, r"(?-u:\b{start-half})").replace(_TAIL, r"(?-u:\b{end-half})")
    source = _GAP.sub(r"(?:_[0-9a-f]{5}|[^\1])\2", source)
    source = "".join(f"(?:{spell(char)})" if char.isalnum() and char > "\x7f" else char for char in source)
    flags = "".join(letter for letter, flag in (("i", re.I), ("m", re.M)) if pattern.flags & flag)
    return f"(?{flags}){source}" if flags else source
