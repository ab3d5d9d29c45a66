"""Lexical anchors: what of the answer, and only of the answer, a turn picks up; and how much of it is a copy.

Works on words, and on character pairs in scripts that put no spaces between words. Cheap and blind to paraphrase:
a turn that reacts in other words has no anchors, one that names a number of the answer has.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from functools import lru_cache
from math import log1p

_WORD = re.compile(
    r"\d+(?:[.,:/]\d+)*|[^\W\d_](?:[^\W\d_]|['’-](?=[^\W\d_])|[\u0300-\u036f\u064b-\u065f\u0900-\u0963\u0966-\u0dff])*"
)
# Han, kana, Thai, Lao, Khmer, Myanmar: no spaces between words.
_DENSE = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
_LETTERS = re.compile(r"[\W_]+")
_SENTENCE = re.compile(r"\n+|(?<=[.!?…])[\"'”’»)\]*_]*\s+|(?<=[。！？؟۔।])")
_MARKER = re.compile(r"^\W*(?:\d{1,3}|[a-zA-Z])[.)]\s+")
_CONTROL = re.compile(r"<\|[^<>|]{1,40}\|>|</?[a-z_]*(?:turn|think|s)>|\[/?INST\]")
_QUESTION = re.compile(r"[?？؟]")
_GRAM = 5
_SHORT = 20
"""Fewer letters than this can be found in any long text by chance: there a copy must equal a whole sentence."""

SIGNALS = (
    "anchors",
    "anchor_share",
    "numbers",
    "context_share",
    "novelty",
    "answer_copy",
    "question_copy",
    "length",
    "question_mark",
    "repetition",
    "control_tokens",
    "lines",
    "ends",
)
"""Text-tier signals in 0..1 unless said otherwise; `text_signals` documents each."""


def text_signals(
    turn: str, answer: str, history: Sequence[str], common: Collection[str] = ()
) -> dict[str, float | None]:
    """The text tier's signals of one turn; all null for a blank one.

    Args:
        history: User messages so far, the question included.
        common: Words too frequent to be an anchor (lower case).

    Returns:
        anchors: log(1 + number of distinct rare terms shared with the answer and absent from the history).
        anchor_share: their share of the turn's distinct content terms.
        numbers: 1 if one of them has a digit.
        context_share: share of content terms that the history has.
        novelty: share of content terms that neither has.
        answer_copy, question_copy: share of the turn's character 5-grams that stand in the answer, in the history.
        length: log(1 + number of terms).
        question_mark: 1 if there is one.
        repetition: 1 - distinct terms / terms.
        control_tokens: 1 if the text holds a chat template's control token.
        lines: log(1 + line breaks).
        ends: 1 if the text ends in closing punctuation.
    """
    if not turn.strip():
        return dict.fromkeys(SIGNALS)
    terms = _terms(turn)
    content = {term for term in terms if _rare(term, common)}
    asked = _term_set("\n".join(history))
    told = _term_set(answer)
    anchors = (content & told) - asked
    denominator = max(len(content), 1)
    distinct = len(set(terms))
    return {
        "anchors": log1p(len(anchors)),
        "anchor_share": len(anchors) / denominator,
        "numbers": float(any(any(c.isdigit() for c in term) for term in anchors)),
        "context_share": len(content & asked) / denominator,
        "novelty": len(content - told - asked) / denominator,
        "answer_copy": coverage(turn, answer),
        "question_copy": max((coverage(turn, text) for text in history), default=0.0),
        "length": log1p(len(terms)),
        "question_mark": float(bool(_QUESTION.search(turn))),
        "repetition": 1 - distinct / len(terms) if terms else 1.0,
        "control_tokens": float(bool(_CONTROL.search(turn))),
        "lines": log1p(turn.strip().count("\n")),
        "ends": float(turn.rstrip().rstrip("\"'”’»)*_")[-1:] in tuple(".!?…。！？؟।۔")),
    }


def anchor_terms(turn: str, answer: str, history: Sequence[str], common: Collection[str] = ()) -> list[str]:
    """The anchors themselves in the order they appear in the turn: the evidence to show."""
    wanted = (_term_set(answer) - _term_set("\n".join(history))) & {t for t in _terms(turn) if _rare(t, common)}
    return [term for term in dict.fromkeys(_terms(turn)) if term in wanted]


def coverage(turn: str, source: str) -> float:
    """Share (0..1) of the turn's character 5-grams that stand in `source`; letters and digits only, case folded.

    A turn shorter than a 5-gram counts by containment as a whole.
    """
    letters, grams = _letters(turn), _grams(source)
    if not letters:
        return 0.0
    if len(letters) < _GRAM:
        return float(letters in _letters(source))
    own = [letters[i : i + _GRAM] for i in range(len(letters) - _GRAM + 1)]
    return sum(gram in grams for gram in own) / len(own)


def is_copy(turn: str, answer: str, history: Sequence[str], threshold: float = 0.9) -> bool:
    """Whether the turn does no more than repeat the answer, a part of it, or an earlier user message.

    At least `threshold` of its 5-grams stand in one of them. A short echo with a question mark ("240 km?") asks for
    something and is no copy unless the source asks it just so.
    """
    letters = _letters(turn)
    if not letters:
        return False
    for source in (answer, *history):
        if len(letters) < _SHORT:
            if letters in _pieces(source) and (not _QUESTION.search(turn) or _QUESTION.search(source)):
                return True
        elif coverage(turn, source) >= threshold:
            return True
    return False


def _rare(term: str, common: Collection[str]) -> bool:
    if any(c.isdigit() for c in term):
        return len(term) > 1
    return term not in common and (len(term) > 3 or bool(_DENSE.match(term)))


def _terms(text: str) -> list[str]:
    """Folded words and numbers; a run of a script without spaces gives its character pairs."""
    found: list[str] = []
    for match in _WORD.finditer(unicodedata.normalize("NFKC", text).casefold()):
        word = match.group()
        last = 0
        for dense in _DENSE.finditer(word):
            found += [word[last : dense.start()]] if word[last : dense.start()] else []
            run = dense.group()
            found += [run[i : i + 2] for i in range(len(run) - 1)] or [run]
            last = dense.end()
        found += [word[last:]] if word[last:] else []
    return found


@lru_cache(maxsize=4096)
def _term_set(text: str) -> frozenset[str]:
    return frozenset(_terms(text))


def _letters(text: str) -> str:
    return _LETTERS.sub("", unicodedata.normalize("NFKC", text).casefold())


@lru_cache(maxsize=4096)
def _pieces(text: str) -> frozenset[str]:
    """The letters of the text, of each of its lines and sentences, with and without a list's number before it."""
    parts = [text, *text.splitlines(), *_SENTENCE.split(text)]
    parts += [piece for line in text.splitlines() for piece in _SENTENCE.split(_MARKER.sub("", line))]
    return frozenset(map(_letters, parts))


@lru_cache(maxsize=4096)
def _grams(text: str) -> frozenset[str]:
    letters = _letters(text)
    return frozenset(letters[i : i + _GRAM] for i in range(len(letters) - _GRAM + 1))
