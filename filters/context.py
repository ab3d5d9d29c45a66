"""What there is to compare a turn with: the conversation, read once per site and shared by its candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from filters.cues import CONTROL
from filters.units import EMPTY, is_english, numbers, plain, sentences, units

ANSWER_LIMIT = 20_000
TURN_LIMIT = 8_000
HISTORY_LIMIT = 24
"""Beyond these (characters, characters, messages) nothing more is learned, and time must stay bounded."""


class Passage(NamedTuple):
    """A text seen as units: all in order, and the set of those with content (of all, where none has any)."""

    text: str
    order: list[str]
    all: frozenset[str]
    content: frozenset[str]
    runs: frozenset[tuple[str, ...]]

    @classmethod
    def read(cls, text: str) -> Passage:
        order = units(text)
        everything = frozenset(order)
        return cls(text, order, everything, frozenset(everything - EMPTY) or everything, runs_of(order))


def runs_of(order: list[str]) -> frozenset[tuple[str, ...]]:
    """All runs of three units: shared ones mean copied wording, not just a shared subject."""
    return frozenset(zip(order, order[1:], order[2:], strict=False))


@dataclass(frozen=True, slots=True)
class Context:
    """A conversation up to the answer."""

    answer: Passage
    answer_sentences: tuple[frozenset[str], ...]
    users: tuple[Passage, ...]
    user_units: frozenset[str]
    user_numbers: frozenset[str]
    answer_numbers: frozenset[str]
    control: frozenset[str]
    letters: frozenset[str]
    english: bool

    @classmethod
    def read(cls, answer: str, history: tuple[str, ...]) -> Context:
        """Args: the answer's text and all user messages so far, oldest first."""
        answer = plain(answer[:ANSWER_LIMIT])
        history = tuple(plain(text[:ANSWER_LIMIT]) for text in history[-HISTORY_LIMIT:])
        users = tuple(Passage.read(text) for text in history)
        joined = "\n".join(history)
        pieces = (frozenset(units(sentence)) for sentence in sentences(answer)[:200])
        return cls(
            answer=Passage.read(answer),
            answer_sentences=tuple(frozenset(piece - EMPTY) or piece for piece in pieces if piece),
            users=users,
            user_units=frozenset().union(*(passage.all for passage in users)),
            user_numbers=frozenset(numbers(joined)),
            answer_numbers=frozenset(numbers(answer)),
            control=frozenset(CONTROL.findall(f"{joined}\n{answer}")),
            letters=frozenset(script(char) for char in set(joined + answer) if char.isalpha()),
            english=is_english(f"{history[-1] if history else ''} {answer}"),
        )


def script(char: str) -> str:
    """A coarse name for a letter's script: the block of the character table it stands in."""
    code = ord(char)
    if code < 0x250 or 0x1E00 <= code < 0x1F00:
        return "latin"
    if 0x3040 <= code < 0x3100 or 0x3400 <= code < 0xA000 or 0xF900 <= code < 0xFB00 or code >= 0x20000:
        return "han"  # Kana with it: Japanese mixes both.
    return f"block {code >> 7}"
