"""Dialogues as the parts on disk tell them: what was said so far, who is next, and how those that ended did.

Each stage of a play is a run folder. A dialogue is followed through one folder after the other, so that nothing but
the parts has to be kept to go on after a kill; all of it streams in reading order. Knows nothing of engines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

from selfplay.core import Conversation, Message, Site
from selfplay.playing.answers import read_answer
from selfplay.playing.endings import user_done
from selfplay.prompting.tokenizer import Tokenizer
from selfplay.runs import Parts

ENDINGS = ("rounds", "user_done", "no_survivor", "budget", "failed")
"""`rounds`: all were played. `user_done`: see `endings`. `no_survivor`: no candidate may be chosen. `budget`: the next
round could exceed the tokens of a dialogue, or an answer was cut at its own limit. `failed`: an answer that cannot be
used, or an engine that gave up; the latter is tried again by the same command."""
TURN_FIGURES = ("label", "genuine", "p_genuine", "groundedness", "rule", "rule_set", "temperature", "sample")
READ_TURNS = ("ordinal", "turn", "finish_reason", "selected", "rejected_for", "rank", *TURN_FIGURES)
Row = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One dialogue at some point of the play.

    Attributes:
        conversation: The messages so far; while it is open the last one is the user's or, before a user turn is
            sampled, the assistant's.
        user_turns: Of each sampled user turn that was chosen: `index` of its message, and `TURN_FIGURES`.
        cut_answers: Indexes of messages that were cut at the token limit.
        stage: The last stage that it took part in, 0 being the first answers.
        ending: One of `ENDINGS`, None while it is open.
        reason: More about the ending.
    """

    ordinal: int
    conversation: Conversation
    user_turns: tuple[dict[str, Any], ...] = ()
    cut_answers: tuple[int, ...] = ()
    stage: int = -1
    ending: str | None = None
    reason: str | None = None

    @property
    def site(self) -> Site:
        """The place of the next message."""
        return Site(self.ordinal, self.conversation, len(self.conversation.messages))

    @property
    def answered(self) -> bool:
        """Whether the assistant spoke last, as in every dialogue that may be trained on."""
        return bool(self.conversation.messages[-1]["role"] == "assistant")

    def saying(self, message: Message) -> Dialogue:
        """With one message more."""
        messages = (*self.conversation.messages, message)
        return replace(self, conversation=replace(self.conversation, messages=messages))

    def ended(self, ending: str, reason: str | None = None) -> Dialogue:
        """At its end. A sampled user turn that got no answer is taken off."""
        if self.answered or not self.user_turns:
            return replace(self, ending=ending, reason=reason)
        conversation = replace(self.conversation, messages=self.conversation.messages[:-1])
        return replace(self, conversation=conversation, user_turns=self.user_turns[:-1], ending=ending, reason=reason)


@dataclass(frozen=True, slots=True)
class Limits:
    """When a dialogue must end.

    Attributes:
        budget: Most tokens of a dialogue; infinite where nothing limits it.
        ahead: Tokens that another user turn with its answer may take.
        allow_cut: Whether it goes on behind an answer that was cut at the token limit.
        tokenizer: Of the assistant, to see control tokens in its answers.
        failed: Why sites were given up on, as far as is known.
    """

    budget: float = math.inf
    ahead: int = 0
    allow_cut: bool = False
    tokenizer: Tokenizer | None = None
    failed: Mapping[str, str] = field(default_factory=dict)


def begun(conversations: Iterable[Conversation], limit: int | None = None) -> Iterator[Dialogue]:
    """Every prompt, or the first `limit` of them, as a dialogue."""
    return (Dialogue(ordinal, prompt) for ordinal, prompt in enumerate(islice(conversations, limit)))


def answered(dialogues: Iterable[Dialogue], run: Parts, limits: Limits, last: bool = False) -> Iterator[Dialogue]:
    """The dialogues behind a stage of answers; those that ended before are passed through.

    Args:
        run: Where the answers were sampled.
        last: The play ends with these answers.
    """
    for dialogue, row in beside(dialogues, answers_in_order(run)):
        if dialogue.ending is not None:
            yield dialogue
            continue
        dialogue = replace(dialogue, stage=dialogue.stage + 1)
        if row is None:
            yield dialogue.ended("failed", _why(dialogue, limits.failed))
            continue
        answer = read_answer(row["turn"], row["finish_reason"], limits.tokenizer)
        index = len(dialogue.conversation.messages)
        if answer.cut and (answer.message is None or not limits.allow_cut):
            yield dialogue.ended("budget", f"the answer at {index} was cut at {row['completion_tokens']} tokens")
        elif answer.message is None:
            yield dialogue.ended("failed", f"the answer at {index} cannot be used: {answer.problem}")
        else:
            dialogue = dialogue.saying(answer.message)
            if answer.cut:
                dialogue = replace(dialogue, cut_answers=(*dialogue.cut_answers, index))
            length = (row["prompt_tokens"] or 0) + (row["completion_tokens"] or 0)
            if last:
                yield dialogue.ended("rounds")
            elif length + limits.ahead > limits.budget:
                told = f"{length} tokens, and {limits.ahead} for another round, are more than {limits.budget:.0f}"
                yield dialogue.ended("budget", told)
            else:
                yield dialogue


def replied(
    dialogues: Iterable[Dialogue], run: Parts, marker: str | None, failed: Mapping[str, str]
) -> Iterator[Dialogue]:
    """The dialogues behind a stage of user turns; those that ended before are passed through.

    Args:
        run: Where the turns were sampled, filtered, ranked and chosen.
        marker: What primed users end with.
        failed: Why sites were given up on, as far as is known.
    """
    for dialogue, candidates in beside(dialogues, turns_in_order(run)):
        if dialogue.ending is not None:
            yield dialogue
            continue
        dialogue = replace(dialogue, stage=dialogue.stage + 1)
        if candidates is None:
            yield dialogue.ended("failed", _why(dialogue, failed))
            continue
        chosen = next((row for row in candidates if row["selected"]), None)
        if user_done(candidates, marker) or (chosen and marker and marker in chosen["turn"]):
            yield dialogue.ended("user_done")
        elif chosen is None:
            yield dialogue.ended("no_survivor", _rejections(candidates))
        else:
            index = len(dialogue.conversation.messages)
            figures = {"index": index} | {name: chosen.get(name) for name in TURN_FIGURES}
            dialogue = dialogue.saying({"role": "user", "content": chosen["turn"]})
            yield replace(dialogue, user_turns=(*dialogue.user_turns, figures))


def answers_in_order(run: Parts) -> Iterator[tuple[int, Row]]:
    """Ordinal and row of each answer, with the tokens of its prompt."""
    columns = ["site_id", "ordinal", "turn", "finish_reason", "completion_tokens"]

    def read(number: int) -> dict[int, Row]:
        prompts = run.read("sites", number, ["site_id", "prompt_tokens"])
        table = run.read("sampled", number, columns).join(prompts, on="site_id")
        return {row["ordinal"]: row for row in table.iter_rows(named=True)}

    return _in_order(run.first("sampled"), read)


def turns_in_order(run: Parts) -> Iterator[tuple[int, list[Row]]]:
    """Ordinal and candidates of each site."""

    def read(number: int) -> dict[int, list[Row]]:
        found: dict[int, list[Row]] = {}
        for row in run.read("turns", number, list(READ_TURNS)).iter_rows(named=True):
            found.setdefault(row["ordinal"], []).append(row)
        return found

    return _in_order(run.first("turns"), read)


def beside(dialogues: Iterable[Dialogue], rows: Iterator[tuple[int, T]]) -> Iterator[tuple[Dialogue, T | None]]:
    """Each dialogue with what has its ordinal; both come in reading order."""
    row = next(rows, None)
    for dialogue in dialogues:
        while row is not None and row[0] < dialogue.ordinal:
            row = next(rows, None)
        yield dialogue, row[1] if row is not None and row[0] == dialogue.ordinal else None


def _in_order(first: Mapping[int, int], read: Any) -> Iterator[tuple[int, Any]]:
    """What the parts hold, by ordinal; only parts that overlap in reading order are in memory at once.

    Args:
        first: The first ordinal in each part.
        read: Number of a part in, what it holds by ordinal out.
    """
    numbers = sorted(first, key=lambda number: first[number])
    held: dict[int, Any] = {}
    for number, following in zip(numbers, [*numbers[1:], None], strict=False):
        held |= read(number)
        bound = math.inf if following is None else first[following]
        for ordinal in sorted(ordinal for ordinal in held if ordinal < bound):
            yield ordinal, held.pop(ordinal)


def _why(dialogue: Dialogue, failed: Mapping[str, str]) -> str:
    return failed.get(dialogue.site.site_id, "could not be sampled; see failed.jsonl and quarantine.jsonl")


def _rejections(candidates: Iterable[Row]) -> str:
    counts: dict[str, int] = {}
    for row in candidates:
        reason = row["label"] if row["rejected_for"] == "flagged" else row["rejected_for"]
        counts[reason] = counts.get(reason, 0) + 1
    return ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))
