"""The conversations in batches, and once more beside what was judged of them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from selfplay.cleaning.folder import Cleaning
from selfplay.cleaning.policy import Policy
from selfplay.core import Conversation
from selfplay.errors import SelfplayError
from selfplay.inputs.conversations import read_conversations
from selfplay.inputs.quarantine import Quarantine

BATCH = 1000
BATCH_MEASURED = 16
"""Conversations in a part, the second where signals are measured, which takes about a second a turn."""
BATCH_CHARS = 8 << 20
"""Characters in a part, about."""
COLUMNS = ("index", "exchanges", "label", "genuine", "p_genuine", "rule", "evidence", "rule_set", "bad")


@dataclass(frozen=True, slots=True)
class Judged:
    """A conversation with what was judged of it.

    Attributes:
        place: Of the conversation in reading order.
        first: Place of its first judged turn among all.
        turns: Its judged turns, `COLUMNS` each.
    """

    place: int
    first: int
    conversation: Conversation
    turns: list[dict[str, Any]]


def batches(
    conversations: Iterable[Conversation], measured: bool, done: Container[int], passed: Callable[[int], None]
) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    """Numbers of parts and the messages of their conversations, but for parts that are done.

    Args:
        measured: Whether signals are measured.
        passed: Called with the number of conversations of each part that is done.
    """
    most = BATCH_MEASURED if measured else BATCH
    batch: list[tuple[Any, ...]] = []
    number = chars = 0
    for conversation in conversations:
        batch.append(conversation.messages)
        chars += sum(len(message["content"]) for message in conversation.messages)
        if len(batch) >= most or chars >= BATCH_CHARS:
            if number in done:
                passed(len(batch))
            else:
                yield number, batch
            number, batch, chars = number + 1, [], 0
    if batch:
        if number in done:
            passed(len(batch))
        else:
            yield number, batch


def judged(folder: Cleaning, path: str, policy: Policy) -> Iterator[Judged]:
    """All conversations with their judged turns, in reading order.

    Raises:
        SelfplayError: The input is not what was judged.
    """
    conversations = read_conversations(path, Quarantine(None))
    place = first = 0
    for number in folder.parts("turns"):
        rows = policy.marked(folder.read("turns", number)).select(COLUMNS).iter_rows(named=True)
        for count in folder.turns_of(number).tolist():
            conversation = next(conversations, None)
            if conversation is None:
                raise _changed(path)
            yield Judged(place, first, conversation, [next(rows) for _ in range(count)])
            place, first = place + 1, first + count
    if next(conversations, None) is not None:
        raise _changed(path)


def _changed(path: str) -> SelfplayError:
    return SelfplayError(f"{path} has changed while it was cleaned; start over with --fresh")
