"""How a cross-encoder scores a turn against the answer it follows: both texts read together, by one number.

Any model that sentence-transformers loads as a `CrossEncoder` with one output, such as a reranker trained on MS MARCO
(Nogueira & Cho 2019, arXiv 1901.04085). The turn stands where such a model expects the query and the answer where it
expects the passage. What the number means is the model's own: only weights learned with it can use it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

from selfplay.errors import SelfplayError
from selfplay.terminal import one_line

SIGNALS = ("cross_score",)


class PairScorer(Protocol):
    """Pairs of texts to numbers. `model` is the name it was asked for by."""

    model: str

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """One number per (turn, answer), higher for what belongs together."""
        ...


class CrossEncoderScorer:
    """A sentence-transformers cross-encoder: a local folder or a Hugging Face id."""

    def __init__(self, model: str, device: str | None = None, batch_size: int = 32) -> None:
        from selfplay.models import quiet_loading, resolve
        from selfplay.prompting.model_files import download

        try:
            from sentence_transformers import CrossEncoder
        except ImportError:
            raise SelfplayError(
                "the cross-encoder signal needs sentence-transformers: pip install 'selfplay-turns[local]'"
            ) from None
        self.model = model
        self._batch_size = batch_size
        place = resolve(model)
        if "/" in place and not os.path.isdir(place):  # loading would try a host that it cannot reach for a minute
            download(place, None, "or give its folder")
        try:
            with quiet_loading():
                self._encoder = CrossEncoder(place, device=device or "cpu", trust_remote_code=False)
        except Exception as error:  # the Hub client, the config readers and torch each raise their own
            raise SelfplayError(f"{model}: not loadable as a cross-encoder ({one_line(error, 200)})") from None
        self._refuse_other_kinds()

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        from torch.nn import Identity

        # Raw outputs: behind a sigmoid the best and the very best are both 1.
        found = self._encoder.predict(
            list(pairs), batch_size=self._batch_size, activation_fn=Identity(), show_progress_bar=False
        )
        return [float(value) for value in found]

    def _refuse_other_kinds(self) -> None:
        """Raises SelfplayError for several outputs, and for a model whose scoring head was made up on loading."""
        outputs = self._encoder.num_labels
        if outputs != 1:
            raise SelfplayError(
                f"{self.model}: a cross-encoder with {outputs} outputs; one with a single score is needed"
            )
        architectures = getattr(self._encoder.config, "architectures", None) or []
        if architectures and not any("Sequence" in name or "CausalLM" in name for name in architectures):
            raise SelfplayError(f"{self.model}: no cross-encoder but a {architectures[0]}, whose score would be random")


@lru_cache(maxsize=2)
def load_cross_encoder(model: str) -> CrossEncoderScorer:
    """The cross-encoder of this process; loaded once per model."""
    return CrossEncoderScorer(model)


def cross_signals(turns: Sequence[str], answers: Sequence[str], scorer: PairScorer) -> dict[str, list[float | None]]:
    """The columns of `SIGNALS`, one value per row; null for a blank turn or answer.

    Cost: one pass per distinct pair. Unlike embeddings nothing is shared between the candidates of a site.
    """
    rows = [(t, a) if t.strip() and a.strip() else None for t, a in zip(turns, answers, strict=True)]
    # Alike lengths share a batch, so that little is padded.
    pairs = sorted({pair for pair in rows if pair}, key=lambda pair: (len(pair[0]) + len(pair[1]), pair))
    scores: dict[Any, float] = dict(zip(pairs, scorer.score(pairs), strict=True)) if pairs else {}
    return {SIGNALS[0]: [scores.get(pair) for pair in rows]}
