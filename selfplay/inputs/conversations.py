"""Reads conversations as a stream and finds the sites in them.

Memory does not grow with the input but for 8 bytes per conversation, to keep ids unique.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np

from selfplay.core import Conversation, Message, Site
from selfplay.errors import UsageError
from selfplay.inputs.formats import Source
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.reading import good_rows
from selfplay.inputs.shapes import site_ends, split_row


def read_conversations(
    path: str,
    quarantine: Quarantine,
    *,
    unique_ids: bool = True,
    on_source: Callable[[Source, str], None] | None = None,
    on_shape: Callable[[str], None] | None = None,
) -> Iterator[Conversation]:
    """Streams the conversations of a file, a folder or stdin, in order.

    JSONL (plain, gzip, zstd, told by content and not by name), Parquet, Arrow as `save_to_disk` writes it; the
    shapes of `selfplay.inputs.shapes`, found for each file. Roles become system, developer, user, assistant or tool,
    content becomes one string; null fields of a message are dropped.

    Args:
        path: File, dataset folder, or `-`.
        quarantine: Gets every bad row with its reason; its `rows` counts all rows.
        unique_ids: Give `id~2`, `id~3` … to later conversations with an id seen before. A conversation without an
            id gets a hash of its messages.
        on_source: Told each file and its format as it is opened.
        on_shape: Told the shape of each good row.

    Raises:
        UsageError, TooManyBadRows: As `good_rows`.
    """

    def take(row: Any, shape: str | None) -> tuple[str, tuple[str | None, tuple[Message, ...], dict[str, Any]]]:
        found, given, messages, extra = split_row(row, shape)
        if on_shape:
            on_shape(found)
        return found, (given, messages, extra)

    def read() -> Iterator[Conversation]:
        ids = UniqueIds()
        for origin, (given, messages, extra) in rows:
            name = given or content_id(messages)
            yield Conversation(ids.claim(name) if unique_ids else name, messages, origin, extra)

    rows = good_rows(path, quarantine, take, on_source)
    return read()


def content_id(messages: Iterable[Message]) -> str:
    """The id of a conversation that has none: 16 hex digits, equal for equal messages in any file format."""
    text = json.dumps(list(messages), ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def sites(conversations: Iterable[Conversation], turns: Literal["last", "all"] = "last") -> Iterator[Site]:
    """The places where a user turn belongs, numbered over the whole input.

    Args:
        conversations: As read.
        turns: `all`: after each assistant message that ends the assistant's turn (see `site_ends`);
            `last`: after the last of these.
    """
    if turns not in ("last", "all"):
        raise UsageError(f"--turns {turns!r}: last or all")
    ordinal = 0
    for conversation in conversations:
        ends = site_ends(conversation.messages)
        for end in ends if turns == "all" else ends[-1:]:
            yield Site(ordinal, conversation, end)
            ordinal += 1


class UniqueIds:
    """Gives an id back, or the id with an ordinal where it was given before. Same input, same ids."""

    def __init__(self) -> None:
        self._seen = HashSet()
        self._ordinals: dict[int, int] = {}

    def claim(self, name: str) -> str:
        """`name` the first time, then `name~2`, `name~3` …, passing over those that were themselves given."""
        key = hash64(name)
        if self._seen.add(key):
            return name
        ordinal = self._ordinals.get(key, 1)
        while True:
            ordinal += 1
            candidate = f"{name}~{ordinal}"
            if self._seen.add(hash64(candidate)):
                self._ordinals[key] = ordinal
                return candidate


class HashSet:
    """A set of 64-bit hashes in 8 bytes each: a sorted array, and a small set of what came since it was sorted."""

    RECENT = 1 << 16

    def __init__(self) -> None:
        self._sorted = np.empty(0, dtype=np.uint64)
        self._recent: set[int] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def add(self, key: int) -> bool:
        """Adds a key; False if it was there."""
        if key in self._recent:
            return False
        at = int(self._sorted.searchsorted(np.uint64(key)))
        if at < len(self._sorted) and int(self._sorted[at]) == key:
            return False
        self._recent.add(key)
        if len(self._recent) >= self.RECENT:
            new = np.fromiter(self._recent, dtype=np.uint64, count=len(self._recent))
            self._sorted = np.sort(np.concatenate([self._sorted, new]))
            self._recent.clear()
        return True


def hash64(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
