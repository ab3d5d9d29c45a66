"""What a turn looks like by itself: markup, loops, length, who seems to speak."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from filters.text import characters, cues, scripts
from filters.text.characters import (
    BACKTICK,
    CLASSES,
    CLOSE_CORNER,
    CLOSE_CURLY,
    CLOSE_QUOTE,
    CLOSE_ROUND,
    CLOSE_SQUARE,
    LATIN,
    OPEN_CORNER,
    OPEN_CURLY,
    OPEN_QUOTE,
    OPEN_ROUND,
    OPEN_SQUARE,
    QUESTION,
    QUOTE,
    SPACE,
    UNSPACED,
)
from filters.text.context import Batch

_INF = float("inf")
FEATURES = (
    ("chars", 0, _INF, "length in characters", "short remarks, run-on text"),
    ("lines", 0, _INF, "lines with text", "lists and documents"),
    ("control", 0, _INF, "control tokens the conversation lacks", "malformed"),
    ("role_marker", 0, _INF, "role markers", "malformed transcripts"),
    ("letters", 0, 1, "share of letters among visible characters", "gibberish and code when low"),
    ("code", 0, 1, "share of characters in lines of code or data", "code without a message"),
    ("unbalanced", 0, _INF, "brackets, quotes and fences left open", "broken markup"),
    ("foreign_script", 0, 1, "share of letters in scripts the conversation lacks", "malformed"),
    ("compression", 0, 1, "share of its size the turn keeps when compressed", "loops when low"),
    ("loop", 1, _INF, "times the same stretch follows itself", "loops"),
    ("cut", 0, 1, "cut at the token limit", "run-on text; NaN where the finish reason is unknown"),
    ("ends", 0, 1, "ends like a sentence", "cut text"),
    ("question", 0, _INF, "question marks", "follow_up"),
    ("question_word", 0, 1, "opens like a question", "follow_up"),
    ("after_question", 0, 1, "share of the text after its first question", "answers its own question"),
    ("assistant", 0, _INF, "phrases from the assistant's seat", "identity_leakage"),
    ("advice", 0, _INF, "phrases of advice and of work done", "identity_leakage"),
    ("opening", 0, 1, "opens like an assistant's answer", "identity_leakage"),
    ("planning", 0, _INF, "phrases that talk about the turn from outside", "meta_planning"),
    ("steering", 0, _INF, "orders to oneself", "meta_planning"),
    ("stage_note", 0, 1, "opens with a stage note", "meta_planning"),
    ("generic", 0, _INF, "phrases that fit everywhere", "generic"),
    ("textbook", 0, 1, "opens like a self-contained request", "off_topic"),
    ("reaction", 0, _INF, "sentences that begin as a reaction", "follow_up"),
    ("pointing", 0, _INF, "words that point back", "follow_up"),
    ("first_person", 0, 1, "share of words in the first person", "a person speaks"),
    ("second_person", 0, 1, "share of words that address the other", "who is addressed"),
    ("lower_start", 0, 1, "starts in lower case", "typed by hand"),
    ("word_length", 0, _INF, "mean word length", "documents and gibberish when high"),
    ("list_items", 0, _INF, "list items", "documents"),
)

_END = (
    ".",
    "?",
    "!",
    "…",
    '"',
    "'",
    "”",
    "’",
    ")",
    "]",
    "*",
    "`",
    "。",
    "？",
    "！",
    "」",
    "』",
    "）",
    "؟",
    "।",
    ":",
    "~",
)
_PAIRS = (
    (OPEN_ROUND, CLOSE_ROUND),
    (OPEN_SQUARE, CLOSE_SQUARE),
    (OPEN_CURLY, CLOSE_CURLY),
    (OPEN_QUOTE, CLOSE_QUOTE),
    (OPEN_CORNER, CLOSE_CORNER),
)
_WORD = [*range(LATIN, SPACE)]
Column = NDArray[np.float64]


def measure(batch: Batch) -> dict[str, Column]:
    """A column of shape (n,) for each of `FEATURES`."""
    n, texts = len(batch), batch.turns
    bare = [text.strip() for text in texts]
    chars = np.fromiter(map(len, bare), np.float64, n)
    counts, words, word_chars = _histogram(texts)
    visible = counts.sum(axis=1) - counts[:, SPACE : SPACE + 2].sum(axis=1)
    letters = counts[:, LATIN : UNSPACED + 1].sum(axis=1)
    matched = batch.matched
    per_word = np.maximum(1, words)
    unbalanced = np.zeros(n)
    for left, right in _PAIRS:
        unbalanced += abs(counts[:, left] - counts[:, right])
    for row in np.flatnonzero(counts[:, BACKTICK] > 2):
        unbalanced[row] += texts[row].count("```") % 2
    question = np.fromiter((max(text.find("?"), text.find("؟")) for text in bare), np.float64, n)
    return {
        "chars": chars,
        "lines": matched["lines"],
        "control": _control(batch),
        "role_marker": matched["role_marker"],
        "letters": _over(letters, visible),
        "code": np.minimum(1, _over(matched["code"], matched["line_chars"])),
        "unbalanced": unbalanced + counts[:, QUOTE] % 2,
        "foreign_script": scripts.foreign(batch, counts),
        "compression": np.fromiter(map(_compression, texts), np.float64, n),
        "loop": np.fromiter(map(_loop, bare), np.float64, n),
        "cut": np.array([np.nan if reason is None else reason == "length" for reason in batch.reasons], np.float64),
        "ends": np.fromiter((text.endswith(_END) for text in bare), np.float64, n),
        "question": counts[:, QUESTION].astype(np.float64),
        "after_question": np.where(question >= 0, _over(chars - question - 1, chars), 0.0),
        **{name: matched[name] for name in ("assistant", "advice", "opening", "planning", "steering", "stage_note")},
        **{name: matched[name] for name in ("generic", "textbook", "reaction", "pointing", "question_word")},
        "first_person": np.minimum(1, matched["first_person"] / per_word),
        "second_person": np.minimum(1, matched["second_person"] / per_word),
        "lower_start": np.fromiter((text[:1].islower() for text in bare), np.float64, n),
        "word_length": word_chars / per_word,
        "list_items": matched["list_items"],
    }


def _histogram(texts: list[str]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Characters of each class by text, shape (n, CLASSES); words and their characters, each of shape (n,)."""
    n = len(texts)
    classes = characters.kinds(characters.codes_of("\n".join(texts) + "\n"))
    lengths = np.fromiter(map(len, texts), np.intp, n) + 1
    row = np.repeat(np.arange(n), lengths)
    counts = np.bincount(row * CLASSES + classes, minlength=n * CLASSES).reshape(n, CLASSES)
    counts[:, characters.NEWLINE] -= 1  # The one that parts them.
    word = _IN_WORD[classes]
    ends = np.flatnonzero(word[:-1] & ~word[1:])
    return counts, np.bincount(row[ends], minlength=n), counts[:, _WORD].sum(axis=1)


_IN_WORD = np.zeros(CLASSES, dtype=np.bool_)
_IN_WORD[_WORD] = True


def _control(batch: Batch) -> Column:
    """Control tokens that the conversation is not about; shape (n,)."""
    found = np.zeros(len(batch))
    for row in np.flatnonzero(batch.matched["may_be_control"]).tolist():
        if tokens := cues.CONTROL.findall(batch.turns[row]):
            users = batch.pair_user[
                np.searchsorted(batch.pair_row, row) : np.searchsorted(batch.pair_row, row, "right")
            ]
            texts = [batch.answers[batch.answer_of[row]], *(batch.users[user] for user in users)]
            known = set(cues.CONTROL.findall("\n".join(texts)))
            found[row] = sum(token not in known for token in tokens)
    return found


def _compression(text: str) -> float:
    """Compressed over plain bytes; 1 for texts under 60 bytes, where the ratio says nothing."""
    data = text.encode("utf-8", errors="replace")
    return 1.0 if len(data) < 60 else min(1.0, len(zlib.compress(data, 6)) / len(data))


def _loop(text: str) -> float:
    """How often the last 2 to 60 characters stand there one after another."""
    if len(text) < 4:
        return 1.0
    best, tail, end = 1, text[-600:], text[-2:]
    place = tail.rfind(end, -62, -2)
    while place >= 0:  # Only where the last two characters stood before can a stretch have ended.
        width = len(tail) - 2 - place
        last = tail[-width:]
        if tail[-2 * width : -width] == last and any(map(str.isalnum, last)):
            times = 2
            while times < 50 and tail[-(times + 1) * width : -times * width] == last:
                times += 1
            best = max(best, times)
        place = tail.rfind(end, max(0, len(tail) - 62), place + 1)
    return float(best)


def _over(part: NDArray[np.generic], whole: NDArray[np.generic]) -> Column:
    result: Column = np.divide(part, whole, out=np.zeros(len(whole)), where=np.asarray(whole) > 0)
    return result
