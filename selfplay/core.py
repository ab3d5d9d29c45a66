"""The whole vocabulary: what flows from conversations to turns.

Knows nothing of files, models or engines. Everything here is frozen data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Message = Mapping[str, Any]
"""One message: `role` (system, user, assistant, tool) and `content` (str), plus whatever the template may want."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a conversation was read: file name and 1-based line (JSONL) or row (Parquet)."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Conversation:
    """A dialogue as read. `extra` holds the columns we do not know; they survive to the output."""

    id: str
    messages: tuple[Message, ...]
    origin: Origin
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Site:
    """A place where a user turn belongs: a conversation up to and including one assistant message.

    Attributes:
        ordinal: Position in reading order, counted over the whole input; stable between runs.
        conversation: The whole dialogue, what comes after the site included.
        end: Number of messages in the context; `conversation.messages[end - 1]` is the assistant's.
    """

    ordinal: int
    conversation: Conversation
    end: int

    @property
    def site_id(self) -> str:
        """Conversation id and index of the assistant message, e.g. `mtbench-81#1`."""
        return f"{self.conversation.id}#{self.end - 1}"

    @property
    def messages(self) -> tuple[Message, ...]:
        """The context: everything up to and including the assistant message."""
        return self.conversation.messages[: self.end]


@dataclass(frozen=True, slots=True)
class Prompt:
    """Text that ends in a role header, as the model's own template would put it.

    Attributes:
        stop: Strings that end the turn and are more than one token.
        stop_token_ids: Single tokens that end the turn.
    """

    text: str
    token_ids: tuple[int, ...]
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters that all draws of a run share. `top_k` 0 means no limit."""

    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 256


@dataclass(frozen=True, slots=True)
class Draw:
    """One candidate to be drawn at a site. `(temperature, sample)` is unique within the site."""

    temperature: float
    sample: int
    seed: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sampled user turn.

    Attributes:
        turn: Raw text, special tokens kept; only the terminator is left out.
        token_ids: Tokens of `turn`, without the terminator; None where the engine does not tell.
        token_logprobs: Logprob (nats) of each token in `token_ids` under the model at temperature 1 without
            truncation of the distribution; None where the engine does not tell.
        finish_reason: `stop`, or `length` for a turn cut at the token limit.
        completion_tokens: Tokens generated, the terminator included.
        cached_tokens: Prompt tokens not computed for this candidate, since a prefix cache held them.
        seeded: Whether `draw.seed` decided the outcome, so that it can be repeated.
        state: float32 [hidden]: mean of the model's hidden state after one layer over the first tokens of `token_ids`,
            where the engine was opened to gather it and read all of them; a turn cut at the limit has a last one that
            was drawn and never read.
    """

    draw: Draw
    turn: str
    token_ids: tuple[int, ...] | None
    token_logprobs: tuple[float, ...] | None
    finish_reason: str
    completion_tokens: int
    cached_tokens: int
    seeded: bool
    state: NDArray[np.float32] | None = field(default=None, compare=False)
