"""Reads answers of `/v1/completions` and `/v1/chat/completions`: checks their shape and cuts off the terminator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from selfplay.core import Candidate, Draw
from selfplay.engines.logprob_scale import gap
from selfplay.engines.retry import Failure, wrong_shape


def completion(answer: Any, draw: Draw, stop_token_ids: Sequence[int], *, logprobs: bool) -> Candidate:
    """A raw completion as a candidate. `logprobs`: whether the server's are of temperature 1.

    Raises:
        Failure: The answer has the wrong shape.
    """
    choice = _choice(answer)
    text, reason = choice.get("text"), choice.get("finish_reason")
    if not isinstance(text, str):
        raise wrong_shape("no text")
    pieces, values = _logprobs(choice)
    ids = choice.get("token_ids")
    if not isinstance(ids, list) or not all(isinstance(i, int) for i in ids):
        ids = None
    kept = _kept(choice, text, pieces, ids, stop_token_ids)
    known = kept is not None and ids is not None
    numbers = values[:kept] if known and logprobs and values is not None and ids and len(values) == len(ids) else None
    return Candidate(
        draw=draw,
        turn=text,
        token_ids=tuple(ids[:kept]) if kept is not None and ids is not None else None,
        token_logprobs=_finite(numbers) if ids else None,
        finish_reason=_finish(reason),
        completion_tokens=_used(answer, len(ids) if ids is not None else len(pieces or ())),
        cached_tokens=cached_tokens(answer),
        seeded=False,
    )


def chat(answer: Any, draw: Draw) -> Candidate:
    """A chat answer as a candidate; its tokens stay unknown.

    Raises:
        Failure: The answer has the wrong shape, or the server refused to answer.
    """
    choice = _choice(answer)
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    if not isinstance(text, str):
        raise wrong_shape("a message without content")
    return Candidate(
        draw=draw,
        turn=text,
        token_ids=None,
        token_logprobs=None,
        finish_reason=_finish(choice.get("finish_reason")),
        completion_tokens=_used(answer, 0),
        cached_tokens=cached_tokens(answer),
        seeded=False,
    )


def cached_tokens(answer: Any) -> int:
    """Prompt tokens that were in the cache; 0 where the server does not tell."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return cached if isinstance(cached, int) and cached >= 0 else 0


def echoed(answer: Any, prefix: int, continuation: int) -> list[float] | None:
    """Logprobs of the continuation in an echoed prompt, or None where the server echoes no logprobs.

    Args:
        prefix: Tokens before the continuation.
        continuation: Tokens of the continuation; at most one generated token may follow them.
    """
    _, values = _logprobs(_choice(answer))
    whole = prefix + continuation
    if values is None or len(values) not in (whole, whole + 1):
        return None
    found = values[prefix:whole]
    return [float(v) for v in found] if all(isinstance(v, int | float) and math.isfinite(v) for v in found) else None


def top_gap(answer: Any) -> float:
    """Nats between the likeliest first token and the last that the server names; NaN where it names none."""
    logprobs = _choice(answer).get("logprobs")
    try:
        return gap([float(value) for value in logprobs["top_logprobs"][0].values()])  # type: ignore[index]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return math.nan


def _kept(
    choice: dict[str, Any], text: str, pieces: list[Any] | None, ids: list[int] | None, stop_token_ids: Sequence[int]
) -> int | None:
    """How many of the tokens make up `text`; None where it cannot be told."""
    count = len(ids) if ids is not None else len(pieces or ())
    if choice.get("finish_reason") != "stop":
        return count
    matched = choice.get("matched_stop", choice.get("stop_reason"))  # SGLang's word and vLLM's
    if ids and (ids[-1] in stop_token_ids or ids[-1] == matched):
        return count - 1
    if pieces is None or len(pieces) != count:
        return None
    # A stop string, or an end token that the server does not name: the texts tell where the turn ends.
    length = 0
    for index, piece in enumerate(pieces):
        if length == len(text):
            return index if "".join(pieces[:index]) == text else None
        length += len(piece) if isinstance(piece, str) else 0
    return count if "".join(map(str, pieces)) == text else None


def _choice(answer: Any) -> dict[str, Any]:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise wrong_shape("not one choice")
    return choices[0]


def _logprobs(choice: dict[str, Any]) -> tuple[list[Any] | None, list[Any] | None]:
    """Texts and logprobs of the tokens: the completions form, or the chat form that llama.cpp gives for both."""
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return None, None
    tokens, values = logprobs.get("tokens"), logprobs.get("token_logprobs")
    if isinstance(tokens, list) and isinstance(values, list):
        return tokens, values
    content = logprobs.get("content")
    if isinstance(content, list) and all(isinstance(item, dict) for item in content):
        return [item.get("token") for item in content], [item.get("logprob") for item in content]
    return None, None


def _finish(reason: Any) -> str:
    if reason in ("stop", "length"):
        return str(reason)
    if reason == "abort":
        raise Failure("aborted by the server", retry=True)
    if isinstance(reason, str):
        raise Failure(f"the server ended the turn with finish_reason {reason!r}", retry=False)
    raise wrong_shape("no finish_reason")


def _used(answer: dict[str, Any], otherwise: int) -> int:
    usage = answer.get("usage")
    used = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return used if isinstance(used, int) and used >= 0 else otherwise


def _finite(values: list[Any] | None) -> tuple[float, ...] | None:
    if values is None or not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        return None
    return tuple(float(v) for v in values)
