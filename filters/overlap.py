"""How much of a turn was already said by the user or in the answer, and how much is new."""

from __future__ import annotations

from rapidfuzz.distance import Indel, LCSseq

from filters.context import Context, Passage
from filters.units import EMPTY, GENERIC, numbers

FEATURES = (
    ("query_cover", 0, 1, "share of the turn's words in an earlier user message", "prompt_restatement when high"),
    ("query_recall", 0, 1, "share of that message's words in the turn", "prompt_restatement when high"),
    ("query_similarity", 0, 1, "edit similarity to an earlier user message", "prompt_restatement when high"),
    ("query_run", 0, 1, "share of the turn's three-word runs in an earlier user message", "copied wording"),
    ("query_new", 0, float("inf"), "content words that message lacks", "a restatement adds few"),
    ("answer_cover", 0, 1, "share of the turn's words in the answer", "assistant_restatement when high"),
    ("answer_sentence", 0, 1, "share of the turn's words in one sentence of the answer", "quotes"),
    ("answer_recall", 0, 1, "share of the answer's words in the turn", "copies and summaries of all of it"),
    ("answer_run", 0, 1, "share of the turn's three-word runs in the answer", "copied wording"),
    ("answer_order", 0, 1, "share of the turn found in the answer in order", "assistant_restatement when high"),
    ("answer_only", 0, float("inf"), "content words from the answer alone", "0: no tie to the answer"),
    ("answer_only_share", 0, 1, "share of content words from the answer alone", "0: no tie to the answer"),
    ("new", 0, float("inf"), "content words nobody said before", "restatements have none"),
    ("new_share", 0, 1, "share of content words nobody said before", "off_topic when high"),
    ("content", 0, float("inf"), "content words", "degenerate when 0"),
    ("specific", 0, float("inf"), "content words that do not fit everywhere", "generic when 0 or 1"),
    ("numbers_new", 0, float("inf"), "numbers nobody said before", "a changed number is no restatement"),
    ("numbers_answer", 0, float("inf"), "numbers from the answer alone", "a tie to the answer"),
)

_EDIT_LIMIT = 1500


def measure(turn: str, context: Context) -> tuple[float, ...]:
    """Values in the order of `FEATURES`; shares of nothing are 0."""
    passage = Passage.read(turn)
    words = passage.content
    if not passage.all:
        return (0.0,) * len(FEATURES)
    content = passage.all - EMPTY
    specific = content - GENERIC
    said = context.user_units
    from_answer = {unit for unit in content if unit in context.answer.all}
    answer_only = from_answer - said
    new = content - from_answer - said
    own_numbers = numbers(turn)
    answer = context.answer
    return (
        *_against_users(passage, context.users),
        _share(len(words & answer.all), len(words)),
        max((len(words & sentence) for sentence in context.answer_sentences), default=0) / len(words),
        _share(len(words & answer.content), len(answer.content)),
        _share(len(passage.runs & answer.runs), len(passage.runs)),
        _share(LCSseq.similarity(passage.order[:400], answer.order[:2000]), min(400, len(passage.order))),
        float(len(answer_only)),
        _share(len(answer_only), len(content)),
        float(len(new)),
        _share(len(new), len(content)),
        float(len(content)),
        float(len(specific)),
        float(len(own_numbers - context.user_numbers - context.answer_numbers)),
        float(len((own_numbers & context.answer_numbers) - context.user_numbers)),
    )


def _against_users(passage: Passage, users: tuple[Passage, ...]) -> tuple[float, float, float, float, float]:
    """Cover, recall, similarity, run and new words at the earlier user message that comes closest to the turn."""
    best = (0.0, 0.0, 0.0, 0.0, float(len(passage.content)))
    closeness = 0.0
    words = passage.content
    text = passage.text[:_EDIT_LIMIT].casefold()
    for user in users:
        if not user.all:
            continue
        shared = len(words & user.content)
        cover, recall = shared / len(words), shared / len(user.content)
        similarity = Indel.normalized_similarity(text, user.text[:_EDIT_LIMIT].casefold())
        if cover + recall + similarity > closeness:
            closeness = cover + recall + similarity
            best = (
                cover,
                recall,
                similarity,
                _share(len(passage.runs & user.runs), len(passage.runs)),
                float(len(words) - shared),
            )
    return best


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
