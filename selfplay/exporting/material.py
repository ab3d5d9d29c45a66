"""What there is to train on in finished results: judged user turns at their sites, and dialogues made of good ones.

Good is a user turn that the data still has, or that was chosen, and in which no rule found a fault. Knows no format.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from rerank.rank import merit
from selfplay.core import Message
from selfplay.errors import UsageError
from selfplay.results import Results

FIGURES = ("model", "primed", "temperature", "sample", "p_genuine", "groundedness")


@dataclass(frozen=True, slots=True)
class Judged:
    """A user turn at its site.

    Attributes:
        messages: The context, which ends with the assistant's.
        turn: A row of `selfplay.results.TURNS`, with `score`: what its site is ranked by, 0..1; where groundedness
            is not known, as of data's own turns, `p_genuine` alone.
        extra: Unknown columns of the conversation.
    """

    messages: Sequence[Message]
    turn: Mapping[str, Any]
    extra: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Unique within the results."""
        return turn_id(self.turn)

    @property
    def good(self) -> bool:
        """Whether it was chosen or kept, and no rule found a fault."""
        return bool(self.turn["selected"]) and not self.turn["bad"]

    @property
    def usable(self) -> bool:
        """Whether there is something to learn from: neither blank nor cut at the token limit."""
        return bool(self.turn["turn"].strip()) and self.turn["finish_reason"] != "length"


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation up to where it stops being good.

    Attributes:
        good: Places in `messages` of the user turns that were judged, and are good.
        cut: Places of answers that were cut at the token limit.
        figures: What is known of the turn it is about, where it is about one.
    """

    id: str
    conversation_id: str
    messages: Sequence[Message]
    good: frozenset[int]
    extra: Mapping[str, Any]
    cut: frozenset[int] = frozenset()
    figures: Mapping[str, Any] = field(default_factory=dict)


def turn_id(turn: Mapping[str, Any]) -> str:
    """`site/temperature/sample`, of a sampled turn; of the data's own the site, and a number for a second one there."""
    if turn["temperature"] is not None:
        return f"{turn['site_id']}/{turn['temperature']:g}/{turn['sample']}"
    return f"{turn['site_id']}/{turn['sample']}" if turn["sample"] else str(turn["site_id"])


def judged(results: Results) -> Iterator[Judged]:
    """All judged turns in reading order, the best of a site first; the replacements of cleaned data after its own.

    Raises:
        UsageError: A file is damaged.
    """
    sources = [results, *results.runs()] if results.verb == "clean" else [results]
    score = pl.when(pl.col("groundedness").is_null()).then(pl.col("p_genuine")).otherwise(merit(FIGURES))
    for source in sources:
        for sites, turns in source.parts():
            contexts = {row["site_id"]: row for row in sites.iter_rows(named=True)}
            # The turns of one site come together, and share what is parsed.
            rows = turns.with_columns(score=score).iter_rows(named=True)
            for site_id, there in itertools.groupby(rows, key=lambda turn: turn["site_id"]):
                site = contexts[site_id]
                messages, extra = json.loads(site["messages"]), json.loads(site["extra"] or "{}")
                for turn in there:
                    yield Judged(messages, turn, extra)


def dialogues(results: Results) -> Iterator[Dialogue]:
    """A dialogue per conversation, cut before its first bad user turn; of a run one for each chosen turn, its end.

    Raises:
        UsageError: A file is damaged.
    """
    if results.verb == "run":
        for found in judged(results):
            if found.good:
                messages: Sequence[Message] = [*found.messages, {"role": "user", "content": found.turn["turn"]}]
                figures = {name: found.turn[name] for name in FIGURES}
                key = found.turn["conversation_id"]
                good = frozenset({len(messages) - 1})
                yield Dialogue(found.id, key, messages, good, found.extra, figures=figures)
        return
    of_row = _cleaned if results.verb == "clean" else _played
    for line, row in enumerate(results.conversations(), 1):
        try:
            messages, good = of_row(row)
            key, cut = str(row["id"]), frozenset(row.get("cut_answers") or ())
        except (KeyError, TypeError, IndexError, AttributeError):
            path = results.folder / "conversations.jsonl"
            raise UsageError(f"{path} line {line} is no row of `selfplay {results.verb}`; make it anew") from None
        own = ("id", "messages", "original_messages", "user_turns")
        yield Dialogue(key, key, messages, good, {name: value for name, value in row.items() if name not in own}, cut)


def _cleaned(row: Mapping[str, Any]) -> tuple[Sequence[Message], frozenset[int]]:
    """Messages up to the first bad user turn, and the places of good ones; one that was put in is good."""
    messages = row["messages"]
    original = row.get("original_messages") or messages
    good: set[int] = set()
    for turn in row["user_turns"]:
        place = turn["index"]
        if place >= len(messages):
            break
        if messages[place] == original[place]:
            if turn["bad"]:
                return messages[:place], frozenset(good)
            good.add(place)
        elif messages[place]["role"] == "user":
            good.add(place)
            break
    return messages, frozenset(good)


def _played(row: Mapping[str, Any]) -> tuple[Sequence[Message], frozenset[int]]:
    """All user turns that follow an answer, or those that were played, where the row tells."""
    messages = row["messages"]
    if row.get("user_turns") is not None:
        return messages, frozenset(turn["index"] for turn in row["user_turns"])
    spoken = [message["role"] for message in messages]
    return messages, frozenset(
        place for place, role in enumerate(spoken) if role == "user" and "assistant" in spoken[:place]
    )
