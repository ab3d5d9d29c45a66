"""What a turn does with the answer: asks, doubts, quotes, opens like the question."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Indel

from filters.text.context import Batch
from filters.text.cues import phrases
from filters.text.patterns import counted

_INF = float("inf")
FEATURES = (
    ("doubt", 0, _INF, "phrases of doubt and contradiction", "follow_up"),
    ("asks_other", 0, 1, "opens with a question to the other", "generic, off_topic in small models"),
    ("sentences", 0, _INF, "sentences", "run-on text"),
    ("asks_last", 0, 1, "ends with a question mark", "follow_up; a text that answers itself ends otherwise"),
    ("quoted", 0, 1, "share of characters between quotation marks", "follow_up that quotes, copied dialogue"),
    (
        "same_opening",
        0,
        1,
        "similarity of its first 40 characters to those of the last user message",
        "prompt_restatement",
    ),
    ("other_language", 0, 1, "in a listed language that the conversation is not in", "malformed"),
)

DOUBT = phrases(
    r"""
    (?:are|r) you sure
    (?:but|wait|hmm|actually|however|though)
    i thought
    (?:isn't|wasn't|doesn't|don't|didn't|won't|wouldn't|aren't) (?:that|this|it|the|you|there|they)
    that(?:'s| is)(?: not|n't) (?:right|what|true|correct|how)
    (?:pero|creía que|seguro que|no era)
    (?:aber|moment|ich dachte|bist du sicher|sicher, dass)
    (?:mais|attends|je croyais|je pensais|es-tu sûr|vous êtes sûr)
    (?:mas|espera|achei que|pensei que|tem certeza)
    (?:ma|aspetta|pensavo|credevo|sei sicuro)
    (?:но|подожди|я думал|я думала|вы уверены|ты уверен)
    (?:लेकिन|मगर|पर क्या)
    """,
    r"""
    但是?
    不过
    可是
    确定吗
    でも
    しかし
    本当に
    (?:لكن|هل أنت متأكد)
    """,
)
ASKS_OTHER = phrases(
    r"""
    (?:can|could|would|will|do|did|are|have|may|should) (?:you|i ask you)
    (?:puedes|podrías|puede|me puedes|me podrías)
    (?:kannst|könntest|können|könnten) (?:du|sie)
    (?:peux-tu|pouvez-vous|pourrais-tu|pourriez-vous|tu peux|vous pouvez)
    (?:você pode|pode|poderia)
    (?:puoi|potresti|può|potrebbe)
    (?:можешь|можете|не могли бы)
    """,
    r"""
    (?:你|您)?(?:能|可以)
    (?:क्या आप)
    (?:هل يمكنك)
    """,
    start=True,
)

_QUOTED = r'"[^"\n]{1,400}"|“[^”\n]{1,400}”|«[^»\n]{1,400}»|「[^」\n]{1,400}」'
_SENTENCES = r"[^.!?。।؟\n]*[^\s.!?。।؟][^.!?。।؟\n]*"
_OPENING = 40


def measure(batch: Batch) -> dict[str, NDArray[np.float64]]:
    """A column of shape (n,) for each of `FEATURES`."""
    import polars as pl

    frame = pl.DataFrame({"text": batch.turns, "lowered": batch.spelled})
    text, lowered = pl.col("text"), pl.col("lowered")
    expressions = {
        "doubt": lowered.str.count_matches(counted(DOUBT)),
        "asks_other": lowered.str.contains(counted(ASKS_OTHER, opening=True)),
        "sentences": text.str.count_matches(_SENTENCES),
        "asks_last": text.str.contains(r"[?؟][\s\"'”’)*_]*$"),
        "quoted": text.str.extract_all(_QUOTED).list.join("").str.len_chars() / text.str.len_chars().clip(1),
    }
    found = frame.select(expression.cast(pl.Float64).alias(name) for name, expression in expressions.items())
    return {
        **{name: found[name].to_numpy() for name in expressions},
        "same_opening": _same_opening(batch),
        "other_language": _other_language(batch),
    }


def _same_opening(batch: Batch) -> NDArray[np.float64]:
    said = [text.lstrip()[:_OPENING].casefold() for text in batch.users]
    return np.fromiter(
        (
            Indel.normalized_similarity(turn.lstrip()[:_OPENING].casefold(), said[last]) if last >= 0 and turn else 0.0
            for turn, last in zip(batch.turns, batch.last.tolist(), strict=True)
        ),
        np.float64,
        len(batch),
    )


def _other_language(batch: Batch) -> NDArray[np.float64]:
    """Its most frequent function words are those of a language that has few of the conversation's."""
    own, said = batch.function_words
    rows, language = np.arange(len(batch)), own.argmax(axis=1)
    plain = (own.max(axis=1) >= 3) & (own.max(axis=1) >= 0.2 * batch.turn_tokens.counts)
    few = (said.max(axis=1) >= 5) & (2 * said[rows, language] < said.max(axis=1))
    return np.asarray(plain & few, dtype=np.float64)
