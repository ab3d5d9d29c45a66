"""What is in an input of conversations: one pass, memory bounded by the number of distinct lengths and columns."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache
from typing import Any

from selfplay.core import Conversation
from selfplay.inputs.conversations import HashSet, content_id, hash64, read_conversations
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.shapes import site_ends

SCRIPT_CHARS = 200
MAX_COLUMNS = 1_000


def inspect_conversations(path: str, quarantine: Quarantine) -> dict[str, Any]:
    """Reads the whole input and counts.

    Returns:
        JSON types only. Lengths are in characters, `turns` are messages of users and assistants; `scripts` are
        writing systems of the first 200 letters of what the users say. `duplicate_conversations` counts those
        whose messages all stood there before.

    Raises:
        UsageError: As `read_conversations`.
        TooManyBadRows: From `quarantine`.
    """
    files: Counter[str] = Counter()
    shapes: Counter[str] = Counter()
    roles: Counter[str] = Counter()
    columns: Counter[str] = Counter()
    scripts: Counter[str] = Counter()
    turns: Counter[int] = Counter()
    lengths: dict[str, Counter[int]] = {"conversation": Counter(), "user": Counter(), "assistant": Counter()}
    ids, contents = HashSet(), HashSet()
    repeated_ids = repeated = conversations = sites_all = tool_calls = 0
    for conversation in read_conversations(
        path,
        quarantine,
        unique_ids=False,
        on_source=lambda _source, kind: files.update([kind]),
        on_shape=lambda shape: shapes.update([shape]),
    ):
        conversations += 1
        sites_all += len(site_ends(conversation.messages))
        repeated_ids += not ids.add(hash64(conversation.id))
        repeated += not contents.add(int(content_id(conversation.messages), 16))
        roles.update(message["role"] for message in conversation.messages)
        turns[sum(message["role"] in ("user", "assistant") for message in conversation.messages)] += 1
        lengths["conversation"][sum(len(message["content"]) for message in conversation.messages)] += 1
        for message in conversation.messages:
            tool_calls += "tool_calls" in message
            if message["role"] in lengths:
                lengths[message["role"]][len(message["content"])] += 1
        columns.update(key for key in conversation.extra if key in columns or len(columns) < MAX_COLUMNS)
        scripts[script_of(conversation)] += 1
    return {
        "path": path,
        "files": dict(files),
        "shapes": dict(shapes.most_common()),
        "rows": quarantine.rows,
        "conversations": conversations,
        "bad": quarantine.bad,
        "bad_by_reason": quarantine.summary(),
        "sites": {"last": conversations, "all": sites_all},
        "roles": dict(roles.most_common()),
        "tool_calls": tool_calls,
        "turns": _spread(turns),
        "characters": {name: _spread(counter) for name, counter in lengths.items()},
        "scripts": dict(scripts.most_common()),
        "extra_columns": dict(columns.most_common()),
        "duplicate_ids": repeated_ids,
        "duplicate_conversations": repeated,
        "first_problems": quarantine.first,
    }


def script_of(conversation: Conversation) -> str:
    """The writing system most of the users' first 200 letters are in; `none` without letters or users."""
    letters: list[str] = []
    for message in conversation.messages:
        if message["role"] == "user":
            letters += [ch for ch in message["content"][: 4 * SCRIPT_CHARS] if ch.isalpha()]
        if len(letters) >= SCRIPT_CHARS:
            break
    found = Counter(_script(ch) for ch in letters[:SCRIPT_CHARS])
    if found["Japanese"]:  # kana among Chinese characters
        found["Japanese"] += found.pop("Chinese", 0)
    return found.most_common(1)[0][0] if found else "none"


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    word = unicodedata.name(letter, "OTHER").split()[0]
    return {"CJK": "Chinese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean"}.get(
        word, word.capitalize()
    )


def _spread(counter: Counter[int]) -> dict[str, int]:
    """Smallest, median (the lower one of two) and largest of counted values; empty where there are none."""
    if not counter:
        return {}
    half, passed = (counter.total() + 1) // 2, 0
    values = sorted(counter)
    for value in values:
        passed += counter[value]
        if passed >= half:
            break
    return {"min": values[0], "median": value, "max": values[-1]}
