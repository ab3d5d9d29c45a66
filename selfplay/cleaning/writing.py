"""Writes what stays and what does not, conversation by conversation in reading order, and counts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from selfplay.atomic import replacing
from selfplay.cleaning.duplicates import Found
from selfplay.cleaning.folder import OUTPUT
from selfplay.cleaning.policy import Outcome, Policy, decide
from selfplay.cleaning.reading import Judged
from selfplay.cleaning.tally import Tally

TURN = ("index", "label", "genuine", "p_genuine", "rule", "evidence", "rule_set", "bad")
"""What `user_turns` tells of each; `index` is of the message in the conversation as it came."""


def write(
    folder: Path,
    conversations: Iterable[Judged],
    policy: Policy,
    found: Found | None,
    replacements: Mapping[int, Mapping[str, Any]],
) -> Tally:
    """Writes `conversations.jsonl` and `dropped.jsonl`, each whole or not at all.

    Args:
        found: Duplicates; None where none were sought.
        replacements: By place of the conversation the turn drawn for its first bad one.
    """
    tally = Tally()
    names = _Names(found) if found else None
    with _outputs(folder) as (kept, dropped):
        for judged in conversations:
            messages = judged.conversation.messages
            outcome = decide(policy, messages, judged.turns, replacements.get(judged.place))
            twice = names.of(judged) if names else {}
            if policy.duplicates == "drop" and outcome.dropped_for is None and "duplicate_of" in twice:
                outcome = Outcome(len(messages), f"duplicate: of {twice['duplicate_of']}")
            tally.add(judged, outcome)
            line = json.dumps(_row(judged, outcome, twice), ensure_ascii=False)
            (kept if outcome.dropped_for is None else dropped).write(line + "\n")
    if names:
        tally.commonest = names.commonest
    return tally


@contextmanager
def _outputs(folder: Path) -> Iterator[list[IO[str]]]:
    with ExitStack() as stack:
        files: list[IO[str]] = []
        for name in OUTPUT:
            place = stack.enter_context(replacing(folder / name))
            files.append(stack.enter_context(open(place, "w", encoding="utf-8")))
        yield files


def _row(judged: Judged, outcome: Outcome, twice: Mapping[str, Any]) -> dict[str, Any]:
    """One line. Unknown columns come last; one that has a name of ours becomes `input_<name>`."""
    messages = list(judged.conversation.messages)
    row: dict[str, Any] = {"id": judged.conversation.id, "messages": messages[: outcome.end]}
    if outcome.replacement is not None:
        row["messages"] = [*row["messages"], {"role": "user", "content": outcome.replacement["turn"]}]
    row["user_turns"] = [{name: turn[name] for name in TURN} for turn in judged.turns]
    if outcome.dropped_for is not None:
        row["dropped_for"] = outcome.dropped_for
    if outcome.end < len(messages):
        row["original_messages"] = messages
    if outcome.replacement is not None:
        row["replacement"] = {"index": outcome.end, **outcome.replacement}
    row |= twice
    for key, value in judged.conversation.extra.items():
        name = key
        while name in row or name in OURS:
            name = f"input_{name}"
        row[name] = value
    return row


OURS = (
    "id", "messages", "user_turns", "dropped_for", "original_messages", "replacement", "duplicate_of", "similarity",
    "repeated_turns",
)  # fmt: skip
"""Columns that rows may have from us."""


def _distinct(originals: NDArray[np.intp]) -> list[int]:
    return pl.Series(originals[originals >= 0]).unique().to_list()


class _Names:
    """Says what is there twice by ids, which are known once the earlier one has been passed."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._conversations = dict.fromkeys(_distinct(found.conversation), "")
        self._turns = dict.fromkeys([*_distinct(found.turn), *found.commonest], "")
        self.commonest: dict[str, int] = {}

    def of(self, judged: Judged) -> dict[str, Any]:
        """`duplicate_of` with `similarity`, and `repeated_turns`, where there is something to say."""
        found, conversation = self._found, judged.conversation
        said: dict[str, Any] = {}
        if judged.place in self._conversations:
            self._conversations[judged.place] = conversation.id
        original = int(found.conversation[judged.place])
        if original >= 0:
            said["duplicate_of"] = self._conversations[original]
            said["similarity"] = round(float(found.similarity[judged.place]), 2)
        repeated = []
        for place, turn in enumerate(judged.turns, judged.first):
            if place in self._turns:
                self._turns[place] = f"{conversation.id}#{turn['index']}"
            if place in found.commonest:
                self.commonest[str(conversation.messages[turn["index"]]["content"])] = found.commonest[place]
            if (first := int(found.turn[place])) >= 0:
                repeated.append({"index": turn["index"], "of": self._turns[first], "exact": bool(found.exact[place])})
        if repeated:
            said["repeated_turns"] = repeated
        return said
