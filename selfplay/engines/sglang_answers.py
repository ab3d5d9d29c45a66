"""Reads SGLang's answers: checks their shape, cuts off the terminator, takes the numbers out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from selfplay.core import Candidate, Draw, Prompt
from selfplay.engines.logprob_scale import gap
from selfplay.engines.retry import wrong_shape


def candidate(answer: Any, prompt: Prompt, draw: Draw, *, seeded: bool, logprobs: bool) -> Candidate:
    """One draw's answer as a candidate. `logprobs`: whether the server's are of temperature 1.

    Raises:
        Failure: The answer has the wrong shape.
    """
    meta = _meta(answer)
    text, reason = answer.get("text"), meta.get("finish_reason")
    if not isinstance(text, str) or not isinstance(reason, dict) or reason.get("type") not in {"stop", "length"}:
        raise wrong_shape("no text or no finish_reason")
    rows = meta.get("output_token_logprobs")
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) >= 2 for row in rows):
        raise wrong_shape("no output_token_logprobs")
    kept = _without_terminator(rows, text, reason.get("matched"), prompt)
    values = None if kept is None else [row[0] for row in kept]
    known = logprobs and values is not None and all(isinstance(v, float | int) and math.isfinite(v) for v in values)
    return Candidate(
        draw=draw,
        turn=text,
        token_ids=None if kept is None else tuple(int(row[1]) for row in kept),
        token_logprobs=tuple(float(v) for v in values) if known and values is not None else None,
        finish_reason=reason["type"],
        completion_tokens=_count(meta, "completion_tokens"),
        cached_tokens=_count(meta, "cached_tokens"),
        seeded=seeded,
    )


def with_cached(one: Candidate, cached: int) -> Candidate:
    """The same candidate with another count of cached tokens."""
    return dataclasses.replace(one, cached_tokens=cached)


def cached_tokens(answer: Any) -> int:
    """Prompt tokens of a request that were in the cache."""
    return _count(_meta(answer), "cached_tokens")


def top_gap(answer: Any) -> float:
    """Nats between the likeliest first token and the last that the server names; NaN where it names none."""
    try:
        return gap([float(row[0]) for row in _meta(answer)["output_top_logprobs"][0]])
    except (KeyError, IndexError, TypeError, ValueError):
        return math.nan


def scores(answer: Any, continuations: Sequence[Sequence[int]]) -> Iterator[list[float]]:
    """Per continuation the logprob of each of its tokens.

    Raises:
        Failure: Not one list of the right tokens per continuation.
    """
    if not isinstance(answer, list) or len(answer) != len(continuations):
        raise wrong_shape(f"not {len(continuations)} scored inputs")
    found = []
    for item, continuation in zip(answer, continuations, strict=True):
        rows = _meta(item).get("input_token_logprobs")
        if not isinstance(rows, list):
            raise wrong_shape("no input_token_logprobs")
        rows = rows[-len(continuation) :]
        # Counting from the end and comparing ids makes an off-by-one between versions an error, not a wrong number.
        if [row[1] for row in rows] != list(continuation) or any(row[0] is None for row in rows):
            raise wrong_shape("input_token_logprobs are not those of the continuation")
        found.append([float(row[0]) for row in rows])
    return iter(found)


def _without_terminator(rows: list[Any], text: str, matched: Any, prompt: Prompt) -> list[Any] | None:
    """The rows of the tokens that make up `text`, or None where a token straddles its end."""
    if isinstance(matched, int):
        return rows[:-1] if rows and rows[-1][1] == matched else rows
    if not isinstance(matched, str):
        return rows
    tail = ""
    for index in range(len(rows) - 1, -1, -1):
        piece = rows[index][2] if len(rows[index]) > 2 else None
        if not isinstance(piece, str):
            return None
        tail = piece + tail
        if matched in tail:
            before = rows[index - 1][2] if index else ""
            # A lone piece of a character decodes to U+FFFD, so there the texts cannot be compared.
            clean = isinstance(before, str) and ("\ufffd" in before or text.endswith(before))
            return rows[:index] if tail.startswith(matched) and clean else None
    return None


def _meta(answer: Any) -> dict[str, Any]:
    meta = answer.get("meta_info") if isinstance(answer, dict) else None
    if not isinstance(meta, dict):
        raise wrong_shape("no meta_info")
    return meta


def _count(meta: dict[str, Any], key: str) -> int:
    value = meta.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise wrong_shape(f"no {key}")
    return value
