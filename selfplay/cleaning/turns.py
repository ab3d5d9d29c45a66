"""The user turns of whole conversations, as rows that the rules judge in their contexts.

A user message counts where it directly follows an assistant's message with text. The rows of a conversation grow with
its length and not with its square: what is earlier goes along only as far as the rules look.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

import filters
from filters.text.context import HISTORY_LIMIT
from selfplay.cleaning.similar import CONVERSATIONS, TURNS, Kind, sketch
from selfplay.core import Message
from selfplay.filtering import ADDED, chosen_rules
from selfplay.inputs.conversations import hash64
from selfplay.signals.measure import STATE
from selfplay.signals.tiers import Measurer, settle

ROW = pl.Schema(
    {
        "conversation": pl.UInt32(),  # number in its part
        "index": pl.UInt32(),  # of the message in the conversation
        "exchanges": pl.UInt32(),  # user messages before it that were answered
        "query": pl.String(),
        "answer": pl.String(),
        "history": pl.List(pl.String()),
        "turn": pl.String(),
        "messages": pl.String(),  # JSON of the context, for those who measure signals
    }
)
KEPT = ("conversation", "index", "exchanges", *ADDED)
"""What stays of a row once it has been judged."""
TABLE_CHARS = 16 << 20
"""Rows are judged together up to about so many characters, contexts counted."""
_WORD = re.compile(r"\w+")

Messages = Sequence[Message]
Tables = tuple[pl.DataFrame, pl.DataFrame]
"""Of some conversations one row each, and of their judged turns one row each, both in order."""


@dataclass(frozen=True, slots=True)
class How:
    """How turns are judged.

    Attributes:
        rules: `text`, `full` or a file.
        tiers: Signals to measure, beside text.
        sketched: Whether what finds duplicates is gathered too.
    """

    rules: str
    tiers: tuple[str, ...]
    sketched: bool


def settled(rules: str, sketched: bool) -> tuple[How, list[str]]:
    """How to judge by these rules on this machine, and what is left out, one line each.

    Raises:
        SelfplayError: The rules cannot be used, or need what cannot be had here.
    """
    found, choice = chosen_rules(rules, "auto")
    tiers, notes = settle(choice, {"rules": found.models}) if found.tiers - {"text"} else ((), [])
    return How(rules, tuple(tier for tier in tiers if tier in found.tiers - {"text"}), sketched), notes


@contextmanager
def opened(how: How) -> Iterator[Callable[[Sequence[Messages]], Tables]]:
    """What judges conversations; its models are loaded when first needed and closed at the end."""
    rules, _ = chosen_rules(how.rules, "auto")
    with Measurer(how.tiers, {"rules": rules.models}, reads=rules.tiers, layer=rules.layer) as measurer:

        def judge(conversations: Sequence[Messages]) -> Tables:
            parts = [pl.DataFrame(schema=ROW).pipe(_labelled_none)]
            for rows in tables(conversations, bool(how.tiers)):
                parts.append(filters.label(measurer(rows), rules).drop(STATE, strict=False).select(KEPT))
            turns = pl.concat(parts)
            counts = np.bincount(turns["conversation"].to_numpy(), minlength=len(conversations)).astype(np.uint32)
            whole = pl.DataFrame({"turns": counts})
            if how.sketched:
                whole, turns = with_sketches(whole, turns, conversations)
            return whole, turns

        yield judge


def _labelled_none(table: pl.DataFrame) -> pl.DataFrame:
    kinds = dict(zip(ADDED, (pl.String, pl.Boolean, pl.Float64, pl.String, pl.String, pl.String), strict=True))
    return table.with_columns(pl.lit(None, kind).alias(name) for name, kind in kinds.items()).select(KEPT)


def judged(messages: Messages) -> list[int]:
    """Indices of the user messages that are judged."""
    return [place for place in range(1, len(messages)) if _follows(messages, place)]


def _follows(messages: Messages, place: int) -> bool:
    before = messages[place - 1]
    return messages[place]["role"] == "user" and before["role"] == "assistant" and bool(before["content"].strip())


def tables(conversations: Sequence[Messages], with_messages: bool = False) -> Iterator[pl.DataFrame]:
    """The judged turns in tables (`ROW`) of bounded size, in order."""
    rows: list[dict[str, Any]] = []
    chars = 0
    for number, messages in enumerate(conversations):
        for row in _rows(number, messages, with_messages):
            rows.append(row)
            chars += len(row["turn"]) + len(row["answer"]) + sum(map(len, row["history"])) + len(row["messages"] or "")
            if chars >= TABLE_CHARS:
                yield pl.DataFrame(rows, schema=ROW)
                rows, chars = [], 0
    if rows:
        yield pl.DataFrame(rows, schema=ROW)


def _rows(number: int, messages: Messages, with_messages: bool) -> Iterator[dict[str, Any]]:
    history: list[str] = []
    exchanges = 0
    waiting = False
    for place, message in enumerate(messages):
        if message["role"] == "user":
            if place and _follows(messages, place):
                yield {
                    "conversation": number,
                    "index": place,
                    "exchanges": exchanges,
                    "query": history[-1] if history else None,
                    "answer": messages[place - 1]["content"],
                    # The first and the latest: the text features look at no others.
                    "history": [*history[:1], *history[max(1, len(history) + 1 - HISTORY_LIMIT) :]],
                    "turn": message["content"],
                    "messages": json.dumps(messages[:place], ensure_ascii=False) if with_messages else None,
                }
            history.append(message["content"])
            waiting = True
        elif message["role"] == "assistant" and message["content"].strip():
            exchanges += waiting
            waiting = False


def with_sketches(whole: pl.DataFrame, turns: pl.DataFrame, conversations: Sequence[Messages]) -> Tables:
    """Both tables with `words, low, bands` of their texts; of turns also `exact`, null for one without words.

    Of a conversation the user's and the assistant's words count, since system messages and tools are often shared.
    """
    said = [
        "\n".join(message["content"] for message in messages if message["role"] in ("user", "assistant"))
        for messages in conversations
    ]
    texts = [
        str(conversations[number][index]["content"])
        for number, index in turns.select("conversation", "index").iter_rows()
    ]
    exact = pl.Series("exact", map(_exact, texts), pl.UInt64)
    return _sketched(whole, said, CONVERSATIONS), _sketched(turns.with_columns(exact), texts, TURNS)


def _sketched(table: pl.DataFrame, texts: Sequence[str], kind: Kind) -> pl.DataFrame:
    found = sketch(texts, kind)
    return table.with_columns(pl.Series(name, getattr(found, name)) for name in ("words", "low", "bands"))


def _exact(text: str) -> int | None:
    """Equal for texts with the same words in the same order, whatever their case and punctuation."""
    words = " ".join(_WORD.findall(text[:100_000].casefold()))
    return hash64(words) if words else None
