"""Writes the dialogues of a play: those with an answer as training data, the other prompts apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selfplay.config import SampleConfig
from selfplay.dataset import with_extra, write_lines
from selfplay.models import published_as
from selfplay.playing.dialogues import Dialogue


def write_dialogues(
    finished: Callable[[], Iterator[Dialogue]], folder: Path, assistant: SampleConfig, user: SampleConfig
) -> Counter[tuple[int, str, bool]]:
    """Writes `conversations.jsonl`, and `unanswered.jsonl` if there is any such prompt, each atomically.

    Args:
        finished: Gives all dialogues of the play, in reading order.

    Returns:
        Dialogues by the stage of their end, their ending, and whether they have any answer.
    """
    ends: Counter[tuple[int, str, bool]] = Counter()

    def told() -> Iterator[Dialogue]:
        for dialogue in finished():
            ends[dialogue.stage, str(dialogue.ending), dialogue.answered] += 1
            if dialogue.answered:
                yield dialogue

    write_lines(folder / "conversations.jsonl", (conversation_row(d, assistant, user) for d in told()))
    unanswered = folder / "unanswered.jsonl"
    if any(not answered for _, _, answered in ends):
        write_lines(unanswered, (unanswered_row(d) for d in finished() if not d.answered))
    else:
        unanswered.unlink(missing_ok=True)
    return ends


def conversation_row(dialogue: Dialogue, assistant: SampleConfig, user: SampleConfig) -> dict[str, Any]:
    """One line of `conversations.jsonl`. The messages end with an answer, so that every user turn has got one."""
    row = {
        "id": dialogue.conversation.id,
        "messages": list(dialogue.conversation.messages),
        "ending": dialogue.ending,
        "ending_reason": dialogue.reason,
        "user_turns": list(dialogue.user_turns),
        "cut_answers": list(dialogue.cut_answers),
        "model": published_as(assistant.model),
        "user_model": published_as(user.model),
        "primed": user.primed,
    }
    return with_extra(row, dialogue.conversation.extra)


def unanswered_row(dialogue: Dialogue) -> dict[str, Any]:
    """One line of `unanswered.jsonl`."""
    row = {
        "id": dialogue.conversation.id,
        "messages": list(dialogue.conversation.messages),
        "ending": dialogue.ending,
        "ending_reason": dialogue.reason,
    }
    return with_extra(row, dialogue.conversation.extra)
