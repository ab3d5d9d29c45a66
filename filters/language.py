"""Which language, as far as function words and scripts tell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from filters.context import Batch
from filters.vocabulary import ENGLISH, function_words


def english(batch: Batch) -> NDArray[np.bool_]:
    """Whether the models of the embedding and likelihood tiers, which know little but English, can judge a row.

    The answer and the last user message have mostly Latin letters, and English function words at least as frequent as
    those of any other listed language (text with too few function words to tell, such as code, counts as English); and
    the turn is not plainly in another listed language. Gibberish and other scripts in the turn are for them to judge.
    Shape (n,).
    """
    answers, users = batch.answer_tokens, batch.user_tokens
    last = np.maximum(batch.last, 0)
    spoken = batch.last >= 0

    def total(of_answers: NDArray[np.generic], of_users: NDArray[np.generic]) -> NDArray[np.generic]:
        own = of_answers[batch.answer_of]
        if not len(of_users):
            return own
        theirs = of_users[last]
        return own + np.where(spoken.reshape(-1, *[1] * (theirs.ndim - 1)), theirs, 0)

    words = total(answers.counts, users.counts)
    letters = total(*(np.bincount(t.owner, weights=t.size, minlength=len(t.counts)) for t in (answers, users)))
    latin = total(*(np.bincount(t.owner, weights=t.size * t.latin, minlength=len(t.counts)) for t in (answers, users)))
    listed = total(function_words(answers), function_words(users))
    most = listed.max(axis=1)
    return (
        (latin >= 0.7 * letters)
        & ((listed[:, ENGLISH] >= most) | (most < 0.08 * words))
        & ~_plainly_other(function_words(batch.turn_tokens), batch.turn_tokens.counts)
    )


def _plainly_other(listed: NDArray[np.intp], words: NDArray[np.intp]) -> NDArray[np.bool_]:
    other = np.delete(listed, ENGLISH, axis=1).max(axis=1)
    return (words >= 4) & (other >= 2 * listed[:, ENGLISH] + 2) & (other >= 0.25 * words)
