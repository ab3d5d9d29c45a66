"""What becomes of a conversation with bad user turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

from filters.labels import Label
from selfplay.core import Message
from selfplay.keeping import Keeping, keeping

OnBad = Literal["flag", "drop-conversation", "cut", "replace"]
Duplicates = Literal["report", "drop", "off"]
BAD = (Label.MALFORMED,)
"""Bad unless asked otherwise: control tokens, loops, gibberish, which nobody means. It is also the label that the text
rules are surest of. Of sampled turns that they call planning or leakage few are (`selfplay rules show --set text`);
weak turns, a restatement or `thanks`, people write too, and users with a goal confirm in the assistant's words."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is bad and what is done about it.

    Attributes:
        good: What a turn must be not to be bad.
    """

    on_bad: OnBad = "flag"
    good: Keeping = field(default_factory=lambda: keeping(drop=BAD))
    duplicates: Duplicates = "report"

    def as_json(self) -> dict[str, Any]:
        """For `run.json`."""
        bad = [label.value for label in Label if label not in self.good.labels]
        return {"on_bad": self.on_bad, "bad": bad, "keep_above": self.good.above, "duplicates": self.duplicates}

    def marked(self, turns: pl.DataFrame) -> pl.DataFrame:
        """Turns with `bad`."""
        marked = self.good.rejected_for(turns)
        return marked.with_columns(bad=pl.col("rejected_for").is_not_null()).drop("rejected_for")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of one conversation.

    Attributes:
        end: So many of its messages stay.
        dropped_for: `kind: detail`, or None if it stays.
        replacement: The row of the turn that takes the place of message `end`; None if there is none.
    """

    end: int
    dropped_for: str | None = None
    replacement: Mapping[str, Any] | None = None


def decide(
    policy: Policy,
    messages: Sequence[Message],
    turns: Sequence[Mapping[str, Any]],
    replacement: Mapping[str, Any] | None = None,
) -> Outcome:
    """What the policy makes of a conversation, duplicates apart.

    Args:
        turns: Its judged turns in order: `index, exchanges, label, bad`.
        replacement: What was drawn to stand in for the first bad turn.
    """
    bad = next((turn for turn in turns if turn["bad"]), None)
    if bad is None or policy.on_bad == "flag":
        return Outcome(len(messages))
    if replacement is not None:
        return Outcome(bad["index"], replacement=replacement)
    if dropped_for := why_dropped(policy, bad):
        return Outcome(len(messages), dropped_for)
    return Outcome(bad["index"])


def why_dropped(policy: Policy, bad: Mapping[str, Any]) -> str | None:
    """Why the conversation with this first bad turn goes as a whole, where nothing replaces the turn; None if not."""
    where = f"message {bad['index']} is {bad['label']}"
    if policy.on_bad == "drop-conversation":
        return f"bad turn: {where}"
    if policy.on_bad != "flag" and not bad["exchanges"]:
        return f"nothing left: {where}, and no user message before it was answered"
    return None
