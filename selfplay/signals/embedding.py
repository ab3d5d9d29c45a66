"""Cosines between a turn, the question and the answer, each distinct text encoded once.

The encoder reads a limited number of tokens (MiniLM: 256), so `cos_answer` sees the head of a long answer only;
`cos_answer_best` looks at it sentence by sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from selfplay.errors import SelfplayError
from selfplay.signals.sentences import sentences
from selfplay.terminal import one_line

SIGNALS = ("cos_query", "cos_answer", "cos_answer_best", "cos_margin")
DEFAULT_EMBEDDER = "all-minilm-l6-v2"


class Embedder(Protocol):
    """Texts to unit vectors. `describe` gives `model` and `revision` as JSON types."""

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit-length rows, shape (len(texts), dimensions)."""
        ...

    def describe(self) -> dict[str, Any]: ...


class SentenceTransformerEmbedder:
    """Any sentence-transformers bi-encoder: an embedded name, a local folder or a Hugging Face id."""

    def __init__(self, model: str = DEFAULT_EMBEDDER, device: str | None = None, batch_size: int | None = None) -> None:
        from selfplay.models import quiet_loading, resolve

        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise SelfplayError(
                "the embedding signals need sentence-transformers: pip install 'selfplay-turns[local]'"
            ) from None
        self.model = model
        # A batch is padded to its longest text, and one answer is as long as ten turns: on a CPU, where a small batch
        # keeps it busy, 8 took 1.3 s for what took 3.0 s in batches of 32.
        self._batch_size = batch_size or (32 if device and device != "cpu" else 8)
        place = resolve(model)
        try:
            with quiet_loading():
                self._encoder = SentenceTransformer(place, device=device or "cpu", trust_remote_code=False)
        except Exception as error:  # the Hub client, the config readers and torch each raise their own
            reason = one_line(error, 200)
            raise SelfplayError(f"{model}: not loadable as a sentence-transformers model ({reason})") from None

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = self._encoder.encode(
            list(texts), batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)

    def describe(self) -> dict[str, Any]:
        return {"model": self.model, "revision": None}


@lru_cache(maxsize=2)
def load_embedder(model: str = DEFAULT_EMBEDDER) -> SentenceTransformerEmbedder:
    """The embedder of this process; loaded once per model."""
    return SentenceTransformerEmbedder(model)


def embedding_signals(
    turns: Sequence[str], queries: Sequence[str | None], answers: Sequence[str], embedder: Embedder
) -> dict[str, list[float | None]]:
    """The columns of `SIGNALS`, one value per row; null for blank turns, and for question signals without a question.

    Cost: one encoding per distinct text, whatever the number of rows.
    """
    pieces = {answer: sentences(answer) for answer in dict.fromkeys(answers)}
    questions = [query if query and query.strip() else None for query in queries]
    vectors = _encode_once(
        [
            *(turn for turn in turns if turn.strip()),
            *(query for query in questions if query),
            *(text for answer, parts in pieces.items() if answer.strip() for text in (answer, *parts)),
        ],
        embedder,
    )
    blocks = {answer: np.stack([vectors[part] for part in parts]) for answer, parts in pieces.items() if parts}
    columns: dict[str, list[float | None]] = {name: [] for name in SIGNALS}
    for turn, query, answer in zip(turns, questions, answers, strict=True):
        turn_vector = vectors[turn] if turn.strip() else None
        to_query = to_answer = best = None
        if turn_vector is not None and query:
            to_query = float(turn_vector @ vectors[query])
        if turn_vector is not None and answer in blocks:
            to_answer = float(turn_vector @ vectors[answer])
            best = float((blocks[answer] @ turn_vector).max())
        margin = best - to_query if best is not None and to_query is not None else None
        for name, value in zip(SIGNALS, (to_query, to_answer, best, margin), strict=True):
            columns[name].append(value)
    return columns


def _encode_once(texts: Iterable[str], embedder: Embedder) -> dict[str, npt.NDArray[np.float32]]:
    distinct = sorted(set(texts), key=lambda text: (len(text), text))  # alike lengths share a batch
    if not distinct:
        return {}
    return dict(zip(distinct, embedder.encode(distinct), strict=True))
