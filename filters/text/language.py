"""Which language, as far as function words and scripts tell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from filters.text.context import Batch
from filters.text.tokens import Tokens
from filters.text.vocabulary import ENGLISH


def english(batch: Batch) -> NDArray[np.bool_]:
    """Whether the models of the embedding and likelihood tiers, which know little but English, can judge a row.

    The answer and the last user message have mostly Latin letters, and English function words at least as frequent as
    those of any other listed language (text with too few function words to tell, such as code, counts as English); and
    the turn is not plainly in another listed language. Gibberish and other scripts in the turn are for them to judge.
    Shape (n,).
    """
    answers, users = batch.answer_tokens, batch.user_tokens
    words = batch.conversation(answers.counts, users.counts)
    letters = batch.conversation(*(_sizes(tokens, tokens.size) for tokens in (answers, users)))
    latin = batch.conversation(*(_sizes(tokens, tokens.size * tokens.latin) for tokens in (answers, users)))
    own, said = batch.function_words
    most = said.max(axis=1)
    mostly = (latin >= 0.7 * letters) & ((said[:, ENGLISH] >= most) | (most < 0.08 * words))
    return np.asarray(mostly & ~_plainly_other(own, batch.turn_tokens.counts), dtype=np.bool_)


def _sizes(tokens: Tokens, sizes: NDArray[np.int32]) -> NDArray[np.intp]:
    """Sums over each text; shape (k,)."""
    return np.diff(np.concatenate([[0], np.cumsum(sizes, dtype=np.intp)]).take(tokens.start))


def _plainly_other(listed: NDArray[np.intp], words: NDArray[np.intp]) -> NDArray[np.bool_]:
    other = np.delete(listed, ENGLISH, axis=1).max(axis=1)
    plain = (words >= 4) & (other >= 2 * listed[:, ENGLISH] + 2) & (other >= 0.25 * words)
    return np.asarray(plain, dtype=np.bool_)
