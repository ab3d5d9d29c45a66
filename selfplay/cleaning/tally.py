"""What a cleaning counted, and the closing table made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from filters.labels import Label
from selfplay.cleaning.duplicates import Found
from selfplay.cleaning.policy import Outcome
from selfplay.cleaning.reading import Judged
from selfplay.core import Message

SOURCES = ("source", "model")
"""Columns that tell where a row is from; the first that a row has."""
MOST_SOURCES = 50
"""Of more only the first are told apart."""


@dataclass(slots=True)
class Tally:
    """Counts, conversation by conversation.

    Attributes:
        before, after: User turns by (source, label), as they came and in what stays; turns that were drawn are not
            among them.
        cut: Conversations that were cut, those with a turn drawn included; `exchanges` and `messages` of them, before
            and after.
        rules: Bad turns by the rule that fired.
        last: Bad turns after which no other turn of their conversation is judged.
        commonest: Repeated turns and how many conversations have them.
    """

    conversations: int = 0
    kept: int = 0
    changed: int = 0
    replaced: int = 0
    bad: int = 0
    unjudged: int = 0
    with_bad: int = 0
    last: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    before: Counter[tuple[str, str]] = field(default_factory=Counter)
    after: Counter[tuple[str, str]] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)
    sources: dict[str, None] = field(default_factory=dict)
    commonest: dict[str, int] = field(default_factory=dict)

    def add(self, judged: Judged, outcome: Outcome) -> None:
        """Counts one conversation."""
        source = self._source(judged.conversation.extra)
        self.conversations += 1
        bad = [turn for turn in judged.turns if turn["bad"]]
        self.bad += len(bad)
        self.with_bad += bool(bad)
        self.last += bool(bad) and bad[-1] is judged.turns[-1]
        self.rules.update(turn["rule"] or "no rule" for turn in bad)
        said = judged.conversation.messages
        self.unjudged += _later(said) - len(judged.turns)
        self.before.update((source, turn["label"]) for turn in judged.turns)
        if outcome.dropped_for is not None:
            self.dropped[outcome.dropped_for.split(": ", 1)[0]] += 1
            return
        self.kept += 1
        self.replaced += outcome.replacement is not None
        self.after.update((source, turn["label"]) for turn in judged.turns if turn["index"] < outcome.end)
        if outcome.end < len(said):
            self.changed += 1
            self.messages.update(before=len(said), after=outcome.end + (outcome.replacement is not None))

    def _source(self, extra: Mapping[str, Any]) -> str:
        value = next((extra[name] for name in SOURCES if isinstance(extra.get(name), str)), "")
        if value not in self.sources:
            if len(self.sources) >= MOST_SOURCES:
                return "(others)"
            self.sources[value] = None
        return str(value)

    def as_json(self, found: Found | None) -> dict[str, Any]:
        """For `run.json`."""
        names = [label.value for label in Label]
        labels = {
            source: {
                name: [self.before[source, name], self.after[source, name]]
                for name in names
                if self.before[source, name]
            }
            for source in sorted({source for source, _ in self.before})
        }
        twice = None
        if found is not None:
            twice = {
                "conversations": int((found.conversation >= 0).sum()),
                "turns_word_for_word": found.repeated,
                "turns_nearly": found.nearly,
                "commonest": self.commonest,
            }
        return {
            "conversations": {
                "in": self.conversations,
                "kept": self.kept,
                "dropped": dict(self.dropped.most_common()),
                "with_bad_turn": self.with_bad,
                "cut": self.changed - self.replaced,
                "replaced": self.replaced,
            },
            "turns": {
                "in": self.before.total(),
                "kept": self.after.total(),
                "bad": self.bad,
                "bad_and_last": self.last,
                "bad_by_rule": dict(self.rules.most_common()),
                "not_judged": self.unjudged,
            },
            "messages_of_changed": dict(self.messages),
            "labels": labels,
            "duplicates": twice,
        }


def _later(messages: Sequence[Message]) -> int:
    """User messages after the first that the assistant said."""
    roles = [message["role"] for message in messages]
    return roles[roles.index("assistant") :].count("user")
