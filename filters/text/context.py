"""Rows of a table made ready to be looked at together: texts bounded and plain, each distinct one once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from filters.text.tokens import Tokens, tokenise
from filters.text.units import normal, plain
from filters.text.vocabulary import function_words

ANSWER_LIMIT = 20_000
TURN_LIMIT = 8_000
HISTORY_LIMIT = 24
"""Beyond these (characters, characters, messages) nothing more is learned, and time must stay bounded."""


@dataclass(frozen=True)
class Batch:
    """n turns with their conversations.

    Attributes:
        turns: NFKC without invisible characters; n of them.
        reasons: Finish reasons, None where unknown.
        answers: The distinct answers, and `answer_of` says which one each row has; shape (n,).
        users: The distinct earlier user messages.
        pair_row, pair_user: Which row has which of them, oldest first, rows in order; shape (pairs,).
        last: The last user message of each row, -1 where there is none; shape (n,).
        matched: What the patterns find in the turns (`matches.find`); columns of shape (n,).
    """

    turns: list[str]
    reasons: list[str | None]
    answers: list[str]
    answer_of: NDArray[np.intp]
    users: list[str]
    pair_row: NDArray[np.intp]
    pair_user: NDArray[np.intp]
    last: NDArray[np.intp]
    turn_tokens: Tokens
    answer_tokens: Tokens
    user_tokens: Tokens
    matched: Mapping[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.turns)

    @cached_property
    def function_words(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Function words of the turn, and of the answer with the last user message; each of shape (n, languages)."""
        said = self.conversation(function_words(self.answer_tokens), function_words(self.user_tokens))
        return function_words(self.turn_tokens), said

    def conversation(self, answers: NDArray[np.intp], users: NDArray[np.intp]) -> NDArray[np.intp]:
        """Counts by answer and by user message summed over each row's answer and last user message; shape (n, …)."""
        own = answers[self.answer_of]
        if not len(users):
            return own
        last = users[np.maximum(self.last, 0)]
        last[self.last < 0] = 0
        return own + last

    @classmethod
    def read(
        cls,
        turns: list[str],
        answers: Iterable[str | None],
        histories: Iterable[Sequence[str | None] | None],
        reasons: Iterable[str | None],
        matched: Mapping[str, NDArray[np.float64]],
    ) -> Batch:
        """Turns as `read_turns` gives them; null texts are empty ones."""
        distinct_answers: dict[str, int] = {}
        distinct_users: dict[str, int] = {}
        bounded = ((text or "")[:ANSWER_LIMIT] for text in answers)
        answer_of = [distinct_answers.setdefault(text, len(distinct_answers)) for text in bounded]
        pairs = [
            [distinct_users.setdefault((text or "")[:ANSWER_LIMIT], len(distinct_users)) for text in texts or ()]
            for texts in (_remembered(history or ()) for history in histories)
        ]
        read_answers = [normal(text) for text in distinct_answers]
        read_users = [plain(text) for text in distinct_users]
        return cls(
            turns=turns,
            reasons=list(reasons),
            answers=read_answers,
            answer_of=np.array(answer_of, dtype=np.intp),
            users=read_users,
            pair_row=np.repeat(np.arange(len(pairs)), [len(own) for own in pairs]),
            pair_user=np.array([user for own in pairs for user in own], dtype=np.intp),
            last=np.array([own[-1] if own else -1 for own in pairs], dtype=np.intp),
            turn_tokens=tokenise(turns),
            answer_tokens=tokenise(read_answers),
            user_tokens=tokenise(read_users),
            matched=matched,
        )


def read_turns(turns: Iterable[str | None]) -> list[str]:
    """Bounded and plain; null is the empty text."""
    return [plain(_ends(turn or "")) for turn in turns]


def _ends(turn: str) -> str:
    """A turn of bounded length: of a long one the beginning and the end."""
    return turn if len(turn) <= TURN_LIMIT else f"{turn[: TURN_LIMIT - 1000]}\n{turn[-1000:]}"


def _remembered(history: Sequence[str | None]) -> Sequence[str | None]:
    """Of a long history the first message, which is the prompt, and the latest."""
    return history if len(history) <= HISTORY_LIMIT else [history[0], *history[1 - HISTORY_LIMIT :]]
