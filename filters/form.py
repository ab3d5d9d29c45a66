"""What a turn looks like by itself: markup, loops, length, who seems to speak."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from typing import NamedTuple

from filters import cues, remarks
from filters.context import TURN_LIMIT, Context, script
from filters.units import plain

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
    ("repeated", 0, 1, "share of three-word runs that were said before in the turn", "loops"),
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

_CODE_LINE = re.compile(
    r"^\s*(?:[{}\[\]();]+\s*,?|<[/!]?\w[^>\n]{0,200}>.{0,200}|\"[\w -]{1,60}\"\s*:.{0,300}|"
    r"(?:def|class|import|from|return|for|while|if|else|elif|try|except|print|const|let|var|function|public|private|"
    r"#include|SELECT|INSERT|UPDATE|CREATE)\b.{0,200}[:;({)}=].{0,100}|[\w.\[\]\"']{1,60}\s*[-+*/]?=[^=].{0,200}|"
    r"\w[\w.]{0,60}\(.{0,200}\)\s*[;:]?|```.{0,40}|\$\s.{1,200})\s*$"
)
_LIST_ITEM = re.compile(r"^\s*(?:[-*•·–]|\(?\d{1,3}[.)]|[a-zA-Z][.)])\s+\S", re.MULTILINE)
_WORD = re.compile(r"\w+")
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
_PAIRS = (("(", ")"), ("[", "]"), ("{", "}"), ("“", "”"), ("「", "」"))


class Form(NamedTuple):
    """The text that was looked at (NFKC, invisible characters dropped, bounded), and its values."""

    text: str
    values: tuple[float, ...]


def measure(turn: str, finish_reason: str | None, context: Context) -> Form:
    """Values in the order of `FEATURES`."""
    text = plain(turn if len(turn) <= TURN_LIMIT else f"{turn[: TURN_LIMIT - 1000]}\n{turn[-1000:]}")
    bare = text.strip()
    words = _WORD.findall(text.casefold())
    lines = [line for line in text.split("\n") if line and not line.isspace()]
    visible = sum(map(len, text.split()))
    letters = [char for char in bare if char.isalpha()]
    count = max(1, len(words))
    question = max(bare.find("?"), bare.find("？"), bare.find("؟"))
    values = (
        len(bare),
        len(lines),
        sum(token not in context.control for token in cues.CONTROL.findall(text)) if set(text) & set("<[|") else 0,
        len(cues.ROLE_MARKER.findall(text)) if (":" in text or "：" in text or "\n" in text or "#" in text) else 0,
        len(letters) / visible if visible else 0.0,
        sum(len(line) for line in lines if _CODE_LINE.match(line)) / max(1, sum(map(len, lines))),
        _unbalanced(text),
        0.0 if bare.isascii() else _foreign(letters, context),
        _compression(text),
        _repeated(words),
        _loop(bare),
        float("nan") if finish_reason is None else float(finish_reason == "length"),
        float(bare.endswith(_END)),
        bare.count("?") + bare.count("？") + bare.count("؟"),
        float(remarks.QUESTION_WORD.match(bare) is not None),
        (len(bare) - question - 1) / len(bare) if question >= 0 else 0.0,
        len(cues.ASSISTANT.findall(text)),
        len(cues.ADVICE.findall(text)),
        float(cues.OPENING.match(bare) is not None),
        len(cues.PLANNING.findall(text)),
        len(cues.STEERING.findall(text)),
        float(cues.STAGE_NOTE.match(text) is not None),
        len(remarks.GENERIC.findall(text)),
        float(remarks.TEXTBOOK.match(bare) is not None),
        len(remarks.REACTION.findall(text)),
        len(remarks.POINTING.findall(text)),
        len(remarks.FIRST_PERSON.findall(text)) / count,
        len(remarks.SECOND_PERSON.findall(text)) / count,
        float(bare[:1].islower()),
        sum(map(len, words)) / count,
        len(_LIST_ITEM.findall(text)),
    )
    return Form(text, tuple(map(float, values)))


def _foreign(letters: list[str], context: Context) -> float:
    return sum(script(char) not in context.letters for char in letters) / len(letters) if letters else 0.0


def _unbalanced(text: str) -> int:
    open_pairs = sum(abs(text.count(left) - text.count(right)) for left, right in _PAIRS)
    return open_pairs + text.count("```") % 2 + text.count('"') % 2


def _compression(text: str) -> float:
    """Compressed over plain bytes; 1 for texts under 60 bytes, where the ratio says nothing."""
    data = text.encode("utf-8", errors="replace")
    return 1.0 if len(data) < 60 else min(1.0, len(zlib.compress(data, 6)) / len(data))


def _repeated(words: list[str]) -> float:
    runs = Counter(zip(words, words[1:], words[2:], strict=False))
    total = sum(runs.values())
    return (total - len(runs)) / total if total else 0.0


def _loop(text: str) -> float:
    """How often the last 2 to 60 characters stand there one after another."""
    tail = text[-600:]
    best = 1
    for width in range(2, min(60, len(tail) // 2) + 1):
        if not tail[:-width].endswith(tail[-width:]) or not any(char.isalnum() for char in tail[-width:]):
            continue
        times = 1
        while tail[-(times + 1) * width : len(tail) - times * width] == tail[-width:] and times < 50:
            times += 1
        best = max(best, times)
    return float(best)
