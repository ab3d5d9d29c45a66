"""The rubric's labels as one enum: definition and precedence. `rubric.md` is the text that judges read."""

from __future__ import annotations

from enum import StrEnum


class Label(StrEnum):
    """What a candidate user turn is. Declared in order of precedence: where several fit, the first wins."""

    MALFORMED = "malformed"
    DEGENERATE = "degenerate"
    META_PLANNING = "meta_planning"
    IDENTITY_LEAKAGE = "identity_leakage"
    PROMPT_RESTATEMENT = "prompt_restatement"
    ASSISTANT_RESTATEMENT = "assistant_restatement"
    GENERIC = "generic"
    OFF_TOPIC = "off_topic"
    FOLLOW_UP = "follow_up"

    @property
    def genuine(self) -> bool:
        """Whether this is a user who reacts to the answer. Only `follow_up` is."""
        return self is Label.FOLLOW_UP

    @property
    def precedence(self) -> int:
        """0 for the label that wins over all others."""
        return PRECEDENCE.index(self)

    @property
    def definition(self) -> str:
        """One sentence; the full wording is in `rubric.md`."""
        return _DEFINITIONS[self]


PRECEDENCE: tuple[Label, ...] = tuple(Label)

_DEFINITIONS = {
    Label.MALFORMED: "Control tokens, glued role markers, broken markup without a message, gibberish, or a loop.",
    Label.DEGENERATE: "Empty, punctuation only, or a bare few words without content.",
    Label.META_PLANNING: "Talks about the turn or the dialogue from outside instead of speaking as the user.",
    Label.IDENTITY_LEAKAGE: "Written from the assistant's seat: answers, carries on, offers help.",
    Label.PROMPT_RESTATEMENT: "Repeats or re-asks an earlier user message and reacts to nothing in the answer.",
    Label.ASSISTANT_RESTATEMENT: "Repeats or sums up the answer and adds nothing.",
    Label.GENERIC: "Fits after almost any answer.",
    Label.OFF_TOPIC: "A self-contained new request or remark without a tie to the answer.",
    Label.FOLLOW_UP: "A user who reacts to this answer.",
}

LABELS = tuple(label.value for label in Label)
"""Their names, in the order that learned weights have."""
