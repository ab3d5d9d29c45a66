"""How much of a turn was already said by the user or in the answer, and how much is new."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Indel, LCSseq

from filters.text import vocabulary
from filters.text.context import Batch
from filters.text.hashing import Index, mix, paired
from filters.text.tokens import Tokens

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
    ("query_stretch", 0, 1, "longest stretch shared with an earlier user message over its length", "copied wording"),
    ("answer_stretch", 0, 1, "longest stretch shared with the answer over its length", "copied wording"),
    ("answer_only_length", 0, float("inf"), "mean length of content words from the answer alone", "telling words"),
    ("names_answer", 0, float("inf"), "names from the answer alone", "a tie to the answer"),
    ("names_new", 0, float("inf"), "names nobody said before", "changed names, off_topic"),
    ("repeated", 0, 1, "share of three-word runs that were said before in the turn", "loops"),
    ("specific", 0, float("inf"), "content words that do not fit everywhere", "generic when 0 or 1"),
)

_EDIT_LIMIT = 1500
_TURN_ORDER, _ANSWER_ORDER = 400, 2000

Column = NDArray[np.float64]
Rows = NDArray[np.intp]


class Words(NamedTuple):
    """The turns' units, equal ones of a row known by one place among all m of them.

    Attributes:
        place: Of each unit; shape (m,).
        first: True once for each distinct unit of a row; shape (m,).
        content: Whether it has content; shape (m,).
        telling: The same, or all where a turn has none with content; shape (m,).
    """

    keys: Index
    row: Rows
    place: NDArray[np.int32]
    first: NDArray[np.bool_]
    content: NDArray[np.bool_]
    telling: NDArray[np.bool_]

    @classmethod
    def read(cls, tokens: Tokens) -> Words:
        index = Index(paired(tokens.unit, tokens.owner))
        content = ~vocabulary.empty(tokens)
        return cls(index, tokens.owner, index.place, index.first, content, telling(tokens, content))


class Found(NamedTuple):
    """Units of other texts, laid out for each row or pair that has them, h in all, in order.

    Attributes:
        group: The row or pair; shape (h,).
        source: Unit among the other texts' ones; shape (h,).
        place: Place of the equal unit of the turn, -1 where it has none; shape (h,).
    """

    group: Rows
    source: Rows
    place: NDArray[np.int32]


def telling(tokens: Tokens, content: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Units with content, or all where a text has none; shape (m,)."""
    some = np.bincount(tokens.owner[content], minlength=len(tokens.counts)) > 0
    return content | ~some[tokens.owner]


def measure(batch: Batch) -> dict[str, Column]:
    """A column of shape (n,) for each of `FEATURES`; shares of nothing are 0."""
    n = len(batch)
    words = Words.read(batch.turn_tokens)
    answers, users = batch.answer_tokens, batch.user_tokens
    answer = _look_up(words, answers, batch.answer_of, np.arange(n))
    user = _look_up(words, users, batch.pair_user, batch.pair_row)
    in_answer, in_users = (_marked(found.place, len(words.place)) for found in (answer, user))
    runs = _Runs.read(words)

    def count(mask: NDArray[np.bool_]) -> Column:
        return np.bincount(words.row[mask & words.first], minlength=n).astype(np.float64)

    only_answer, only_turn = in_answer & ~in_users, ~in_answer & ~in_users
    sentence = batch.turn_tokens.sentence
    # A capital at the start of a sentence says nothing; German nouns count, in all texts alike.
    name = batch.turn_tokens.upper & words.content & (np.diff(sentence, prepend=-1) == 0)

    def mean_size(mask: NDArray[np.bool_]) -> Column:
        rows = mask & words.first
        return _share(np.bincount(words.row[rows], weights=batch.turn_tokens.size[rows], minlength=n), count(mask))

    def names(mask: NDArray[np.bool_]) -> Column:
        where = np.flatnonzero(name & mask[words.place])
        return _distinct(words.row[where], words.place[where], n).astype(np.float64)

    content = count(words.content)
    told = count(words.telling)
    answer_only = count(words.content & only_answer)
    new = count(words.content & only_turn)
    answer_telling = telling(answers, ~vocabulary.empty(answers))
    answer_runs = runs.shared(answer.place, answer.group)
    user_runs = runs.shared(user.place, user.group)
    in_answer_runs = _marked(answer_runs[1], len(runs.first))
    return {
        **_against_users(batch, words, user, runs, user_runs, told),
        "answer_cover": _share(count(words.telling & in_answer), told),
        "answer_sentence": _share(_best_sentence(answer, words, answers.sentence, n), told),
        "answer_recall": _share(
            np.bincount(answer.group[(answer.place >= 0) & answer_telling[answer.source]], minlength=n),
            np.bincount(answers.owner[answer_telling], minlength=len(answers.counts))[batch.answer_of],
        ),
        "answer_run": _share(np.bincount(runs.row[in_answer_runs], minlength=n), runs.distinct(n)),
        "answer_order": _order(batch, words, answer, in_answer),
        "answer_only": answer_only,
        "answer_only_share": _share(answer_only, content),
        "new": new,
        "new_share": _share(new, content),
        "content": content,
        "specific": count(words.content & ~vocabulary.generic(batch.turn_tokens)),
        "query_stretch": _stretch(runs, _marked(user_runs[1], len(runs.first)), batch),
        "answer_stretch": _stretch(runs, in_answer_runs, batch),
        "answer_only_length": mean_size(words.content & only_answer),
        "names_answer": names(only_answer),
        "names_new": names(only_turn),
        "repeated": 1 - _share(runs.distinct(n), np.bincount(runs.row, minlength=n), nothing=1.0),
    }


def _look_up(words: Words, tokens: Tokens, text_of: Rows, row_of: Rows) -> Found:
    if len(text_of) == len(tokens.counts) and (text_of == np.arange(len(text_of))).all():  # Each has its own text.
        return Found(
            tokens.owner, np.arange(len(tokens.unit)), words.keys.find(paired(tokens.unit, row_of[tokens.owner]))
        )
    counts = tokens.counts[text_of]
    group = np.repeat(np.arange(len(text_of)), counts)
    source = np.arange(len(group)) + np.repeat(tokens.start[text_of] - (np.cumsum(counts) - counts), counts)
    return Found(group, source, words.keys.find(paired(tokens.unit[source], row_of[group])))


class _Runs(NamedTuple):
    """Runs of three units: shared ones mean copied wording, not just a shared subject.

    Attributes:
        start: The unit each run begins with; shape (r,).
        first: True once for each distinct run of a row; shape (r,).
    """

    keys: Index
    row: Rows
    start: Rows
    first: NDArray[np.bool_]

    @classmethod
    def read(cls, words: Words) -> _Runs:
        start = np.flatnonzero(words.row[2:] == words.row[:-2])
        index = Index(_triples(words.place, start))
        return cls(index, words.row[start], start, index.first)

    def distinct(self, n: int) -> NDArray[np.intp]:
        """Distinct runs of each row, shape (n,)."""
        return np.bincount(self.row[self.first], minlength=n)

    def shared(self, place: NDArray[np.int32], group: Rows) -> tuple[Rows, NDArray[np.int32]]:
        """Groups and the runs of the turn that stand in them, as pairs."""
        known = place >= 0
        start = np.flatnonzero(known[2:] & known[1:-1] & known[:-2] & (group[2:] == group[:-2]))
        run = self.keys.find(_triples(place, start))
        hit = run >= 0
        return group[start[hit]], run[hit]


def _triples(place: NDArray[np.int32], start: Rows) -> NDArray[np.uint64]:
    """Keys of the runs that begin at `start`. Places tell rows apart already."""
    first, second, third = (place[start + offset].astype(np.uint64) for offset in range(3))
    return mix(mix(first << np.uint64(32) | second) + third)


def _against_users(
    batch: Batch,
    words: Words,
    user: Found,
    runs: _Runs,
    user_runs: tuple[Rows, NDArray[np.int32]],
    told: Column,
) -> dict[str, Column]:
    """Cover, recall, similarity, run and new words at the earlier user message that comes closest to the turn."""
    n, pairs = len(batch), len(batch.pair_row)
    users = batch.user_tokens
    said = telling(users, ~vocabulary.empty(users))
    hits = np.flatnonzero((user.place >= 0) & said[user.source])
    hits = hits[words.telling[user.place[hits]]]
    shared = _distinct(user.group[hits], user.place[hits], pairs)
    cover = _share(shared, told[batch.pair_row])
    recall = _share(
        np.bincount(user.group[hits], minlength=pairs),
        np.bincount(users.owner[said], minlength=len(users.counts))[batch.pair_user],
    )
    folded_turns = [text[:_EDIT_LIMIT].casefold() for text in batch.turns]
    folded_users = [text[:_EDIT_LIMIT].casefold() for text in batch.users]
    similarity = np.fromiter(
        (
            Indel.normalized_similarity(folded_turns[row], folded_users[own])
            for row, own in zip(batch.pair_row.tolist(), batch.pair_user.tolist(), strict=True)
        ),
        np.float64,
        pairs,
    )
    run = _share(_distinct(*user_runs, pairs), runs.distinct(n)[batch.pair_row])
    closeness = cover + recall + similarity
    closeness[(users.counts[batch.pair_user] == 0) | (told[batch.pair_row] == 0)] = 0.0
    order = np.lexsort((-closeness, batch.pair_row))  # Stable: of equally close ones the oldest.
    best = order[np.flatnonzero(np.diff(batch.pair_row[order], prepend=-1))]
    best = best[closeness[best] > 0]
    columns = {
        "query_cover": cover,
        "query_recall": recall,
        "query_similarity": similarity,
        "query_run": run,
        "query_new": told[batch.pair_row] - shared,
    }
    result = {}
    for name, column in columns.items():
        result[name] = told.copy() if name == "query_new" else np.zeros(n)
        result[name][batch.pair_row[best]] = column[best]
    return result


def _best_sentence(answer: Found, words: Words, sentence: NDArray[np.int32], n: int) -> Column:
    """Most distinct telling words that a single sentence of the answer shares with the turn, shape (n,)."""
    best = np.zeros(n)
    hits = np.flatnonzero(answer.place >= 0)
    hits = hits[words.telling[answer.place[hits]]]
    if not hits.size:
        return best
    row, own = answer.group[hits], sentence[answer.source[hits]]
    begins = np.flatnonzero(np.concatenate([[True], (row[1:] != row[:-1]) | (own[1:] != own[:-1])]))
    number = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(row)))
    np.maximum.at(best, row[begins], _distinct(number, answer.place[hits], len(begins)))
    return best


def _stretch(runs: _Runs, shared: NDArray[np.bool_], batch: Batch) -> Column:
    """Units of the turn's longest stretch all whose runs of three are shared, over its length; shape (n,)."""
    n = len(batch)
    best = np.zeros(n)
    where = np.flatnonzero(shared[runs.keys.place])
    if where.size:
        row = runs.row[where]
        begins = np.flatnonzero(np.concatenate([[True], (np.diff(runs.start[where]) != 1) | (row[1:] != row[:-1])]))
        np.maximum.at(best, row[begins], np.diff(begins, append=len(where)) + 2)
    return _share(best, batch.turn_tokens.counts)


def _order(batch: Batch, words: Words, answer: Found, in_answer: NDArray[np.bool_]) -> Column:
    """Longest common subsequence over the length of the turn, in units; shape (n,).

    Units that only one side has are in no common subsequence and are left out before.
    """
    n = len(batch)
    start = batch.turn_tokens.start
    counts = np.minimum(batch.turn_tokens.counts, _TURN_ORDER)
    here = in_answer[words.place] & (np.arange(len(words.row)) - start[words.row] < _TURN_ORDER)
    within = answer.source - batch.answer_tokens.start[batch.answer_of[answer.group]]
    there = (answer.place >= 0) & (within < _ANSWER_ORDER)
    turns = _as_text(words.place[here], words.row[here], start, n)
    others = _as_text(answer.place[there], answer.group[there], start, n)
    common = np.fromiter(map(LCSseq.similarity, turns, others), np.float64, n)
    return _share(common, counts)


def _as_text(place: NDArray[np.int32], row: Rows, start: Rows, n: int) -> list[str]:
    """Sequences as strings, one character a unit, for whoever compares strings fast."""
    text = (place - start[row] + 1).astype("<u4").tobytes().decode("utf-32-le")
    ends = np.cumsum(np.bincount(row, minlength=n)).tolist()
    return [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def _distinct(group: Rows, place: NDArray[np.int32], groups: int) -> NDArray[np.intp]:
    """Distinct places in each group, shape (groups,)."""
    index = Index(mix(group.astype(np.uint64) << np.uint64(32) | place.astype(np.uint64)))
    return np.bincount(group[index.first], minlength=groups)


def _marked(places: NDArray[np.int32], size: int) -> NDArray[np.bool_]:
    marked = np.zeros(size, dtype=np.bool_)
    marked[places[places >= 0]] = True
    return marked


def _share(part: NDArray[np.generic], whole: NDArray[np.generic], nothing: float = 0.0) -> Column:
    result: Column = np.divide(part, whole, out=np.full(len(whole), nothing), where=np.asarray(whole) > 0)
    return result
