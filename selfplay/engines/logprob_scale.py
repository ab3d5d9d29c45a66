"""Whether a server's logprobs come before the temperature or after it, measured and not assumed.

Some servers divide the logits by the temperature before they report logprobs (SGLang by default), some do not (vLLM,
llama.cpp, SGLang with SGLANG_RETURN_ORIGINAL_LOGPROB=1), and none tells. At temperature 0.5 the gap between two tokens
doubles in the first case and stays in the second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

TOP = 5
"""Tokens to ask for: OpenAI's limit, and enough that the first and the last are apart."""

PLAIN = 0.25
"""Nats that they must be apart for the two cases to be told from rounding."""


def gap(top_logprobs: Sequence[float]) -> float:
    """Nats between the likeliest token and the last of those given; NaN for less than two."""
    ordered = sorted(top_logprobs, reverse=True)
    return ordered[0] - ordered[-1] if len(ordered) > 1 else math.nan


def unscaled(at_one: float, at_half: float) -> bool | None:
    """Whether logprobs are of temperature 1 at any temperature, from the gaps at 1 and 0.5; None if unclear."""
    if not (math.isfinite(at_one) and math.isfinite(at_half)) or at_one < PLAIN:
        return None
    ratio = at_half / at_one
    if 0.75 < ratio < 1.33:
        return True
    return False if 1.5 < ratio < 2.67 else None
