"""The protocol every engine keeps: two operations, `sample` and `score`.

An engine knows tokens, draws and its own scheduling. It knows nothing of sites, filters or files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from selfplay.core import Candidate, Draw, Message, Prompt, Sampling

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """All draws of one site; they share the whole prompt. `messages` is for engines that take no raw prompt."""

    key: str
    prompt: Prompt
    draws: tuple[Draw, ...]
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class SampleResult:
    """The candidates of one request in the order of its draws, or the reason there are none."""

    key: str
    candidates: tuple[Candidate, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Continuations that share one prefix. Both are token ids: text is never re-tokenised across the seam."""

    prefix: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model made of one continuation.

    Attributes:
        logprobs: Nats at temperature 1, one per token.
        state: float32 [hidden]: mean over the continuation's tokens of the hidden state after the layer that was asked
            for; None where none was, and of an empty continuation.
    """

    logprobs: list[float]
    state: NDArray[np.float32] | None = None


@dataclass(slots=True)
class CacheUse:
    """What an engine has read so far, and how much of it its prefix cache held.

    Attributes:
        tokens: Tokens of prompts, or of what was scored: prefixes and continuations, each continuation with its prefix.
        cached: Those of them that were not computed, since a prefix cache held them.
    """

    tokens: int = 0
    cached: int = 0


class Engine(Protocol):
    """A language model that samples and scores over a prefix cache.

    Attributes:
        name: `sglang`, `transformers` or `openai`.
        group: Number of consecutive requests that the engine batches together. Callers that want a repeatable
            run hand over whole groups, cut at the same places every time.
        primed: True where the turn is asked for by instruction and not sampled at the user header.
        seeded: True where `Draw.seed` decides the outcome.
        context_length: Tokens that prompt and completion together may have; None where the engine does not tell.

    Engines that know how well their cache serves them while scoring also have `scored: CacheUse`. Those whose
    `Candidate.cached_tokens` tell only of their own batch, so that a resumed run equals another, also have `prompted:
    CacheUse`, of the prompts sampled at. Those that can look into the model are `Reader`s too.
    """

    name: str
    group: int
    primed: bool
    seeded: bool
    context_length: int | None

    def describe(self) -> dict[str, Any]:
        """Model, revision, versions, device and settings, for `run.json`; JSON types only."""
        ...

    def sample(self, requests: Iterable[SampleRequest], sampling: Sampling) -> Iterator[SampleResult]:
        """Yields one result per request as each is finished, in any order.

        `requests` is pulled lazily and at most a bounded number are in flight; when it ends, what is in flight is
        finished and yielded. A request that fails for good yields a result with `error`; it never raises for one.

        Raises:
            EngineError: The engine as a whole cannot go on (never reachable, model refused).
        """
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[list[float]]]:
        """Logprob (nats, temperature 1) of every continuation token given prefix and the tokens before it.

        Returns:
            Per request, per continuation, one float per token. An empty continuation gives an empty list.

        Raises:
            EngineError: The engine cannot score, or failed after its retries.
        """
        ...

    def close(self) -> None:
        """Frees the model or stops the server this engine started. Safe to call twice."""
        ...


@runtime_checkable
class Reader(Protocol):
    """An engine that can tell what a layer of the model holds, besides logprobs.

    Attributes:
        layers: How many there are; 0 where this model's cannot be read.
    """

    layers: int

    def read(self, requests: Sequence[ScoreRequest], layer: int) -> list[list[Reading]]:
        """Logprobs as by `Engine.score`, and the mean state after `layer` (counted from 1), in the same pass.

        Returns:
            Per request, per continuation, one reading.

        Raises:
            EngineError: As `Engine.score`, or the model has no such layer.
        """
        ...
