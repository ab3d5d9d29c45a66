"""An assistant's answer as it was sampled, made a message, or refused with the reason."""

from __future__ import annotations

from dataclasses import dataclass

from selfplay.core import Message
from selfplay.prompting.tokenizer import Tokenizer

OPEN, CLOSE = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a sampled answer.

    Attributes:
        message: None where it cannot go into a dialogue.
        cut: It ended at the token limit.
        problem: Why there is no message.
    """

    message: Message | None
    cut: bool = False
    problem: str | None = None


def read_answer(text: str, finish_reason: str, tokenizer: Tokenizer | None) -> Answer:
    """The answer without the white space around it; thinking in `<think>` tags goes into `reasoning_content`.

    Args:
        tokenizer: Of the model that wrote it: an answer that holds one of its control tokens is broken, since the next
            prompt would show it as the end of a turn or as another's. None looks for none.
    """
    cut = finish_reason == "length"
    reasoning, closed, content = text.rpartition(CLOSE)
    if not closed and text.lstrip().startswith(OPEN):
        return Answer(None, cut, "it never ended its thinking")
    content, reasoning = content.strip(), reasoning.strip().removeprefix(OPEN).strip()
    if not content:
        return Answer(None, cut, "it is blank")
    for piece in tokenizer.pieces(content) if tokenizer else ():
        if tokenizer and tokenizer.token_id(piece) is not None:
            return Answer(None, cut, f"it holds the control token {piece}")
    thought = {"reasoning_content": reasoning} if reasoning else {}
    return Answer({"role": "assistant", "content": content, **thought}, cut)
