"""The decode loop: draws tokens for all rows of a batch until each meets its stop, and cuts the turns.

Knows stops, limits and text; nothing of how logits come about (`forward.py`) or tokens are drawn (`draws.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from selfplay.core import Candidate, Draw, Sampling
from selfplay.engines.base import SampleRequest, SampleResult
from selfplay.engines.draws import pick, uniforms
from selfplay.engines.forward import Rows
from selfplay.engines.states import RunningMean


class Decodes(Protocol):
    """What is asked of a tokenizer."""

    def decode(self, ids: Sequence[int]) -> str: ...


def decode_batch(
    rows: Rows,
    requests: Sequence[SampleRequest],
    sampling: Sampling,
    limits: Sequence[int],
    eos: Sequence[int],
    tokenizer: Decodes,
    state_tokens: int = 0,
) -> list[SampleResult]:
    """Draws every row of the batch to its end.

    Args:
        rows: Prefilled; as many rows per request as it has draws, in their order.
        limits: Most tokens per request.
        eos: Tokens that end any turn, besides the request's own stops.
        state_tokens: Tokens of a turn that count for its mean state, where the rows watch a layer.
    """
    owners = [number for number, request in enumerate(requests) for _ in request.draws]
    draws = [draw for request in requests for draw in request.draws]
    device = rows.logits.device
    limit = torch.tensor([limits[number] for number in owners])
    noise = uniforms([draw.seed for draw in draws], int(limit.max())).to(device)
    temperature = torch.tensor([draw.temperature for draw in draws], dtype=torch.float32, device=device)
    enders = _enders([(*requests[number].prompt.stop_token_ids, *eos) for number in owners])
    tokens = torch.zeros(len(draws), int(limit.max()), dtype=torch.int64)
    logprobs = torch.zeros(len(draws), int(limit.max()))
    lengths = torch.zeros(len(draws), dtype=torch.int64)
    ended = torch.zeros(len(draws), dtype=torch.bool)
    present = torch.arange(len(draws))  # the rows that are still computed
    alive = torch.ones(len(draws), dtype=torch.bool)
    means = RunningMean(len(draws), state_tokens)

    for step in range(int(limit.max())):
        here = present.to(device)
        drawn, logprob = pick(rows.logits, temperature[here], sampling, noise[here, step])
        on_cpu = drawn.cpu()
        tokens[present, step] = on_cpu
        logprobs[present, step] = logprob.float().cpu()
        was_alive = alive[present]
        lengths[present] += was_alive
        hit = (on_cpu[:, None] == enders[present]).any(-1)
        ended[present] |= hit & was_alive
        alive[present] &= ~hit & (step + 1 < limit[present])
        for row in present[alive[present]].tolist():
            stops = requests[owners[row]].prompt.stop
            if stops and _meets_stop(tokens[row, : step + 1], stops, tokenizer):
                alive[row] = False
        left = alive[present].nonzero()[:, 0]
        if not len(left):
            break
        # Every row dropped saves its share of all later steps and costs one copy of the others' own tokens.
        if len(present) - len(left) >= math.ceil(len(present) / 8):
            rows.keep(left)
            present, drawn = present[left], drawn[left.to(device)]
        rows.step(drawn)
        if rows.states is not None:
            means.add(rows.states, present, alive[present])

    results, row = [], 0
    for number, request in enumerate(requests):
        candidates = []
        for sample, draw in enumerate(request.draws):
            length = int(lengths[row])
            cached = rows.cached[number] if sample == 0 or rows.copied else len(request.prompt.token_ids)
            candidate = _candidate(
                draw,
                tokens[row, :length].tolist(),
                logprobs[row, :length].tolist(),
                bool(ended[row]),
                request.prompt.stop,
                cached,
                tokenizer,
            )
            candidates.append(replace(candidate, state=means.of(row, len(candidate.token_ids or ()))))
            row += 1
        if any(math.isnan(value) for candidate in candidates for value in candidate.token_logprobs or ()):
            results.append(SampleResult(request.key, error="the model's logits are not numbers; try another dtype"))
        else:
            results.append(SampleResult(request.key, tuple(candidates)))
    return results


def _enders(per_row: Sequence[Sequence[int]]) -> Tensor:
    """int64 [rows, most], padded with -1, which is no token."""
    most = max(1, max(len(ids) for ids in per_row))
    return torch.tensor([[*ids, *[-1] * (most - len(ids))] for ids in per_row])


def _meets_stop(tokens: Tensor, stops: Sequence[str], tokenizer: Decodes) -> bool:
    """Whether a stop string has just been completed. Every token holds at least a byte, so a short tail will do."""
    tail = max(len(stop.encode()) for stop in stops) + 4
    text = tokenizer.decode(tokens[-tail:].tolist())
    if not any(stop in text for stop in stops):
        return False
    return len(tokens) <= tail or _first_stop(tokenizer.decode(tokens.tolist()), stops) is not None


def _first_stop(text: str, stops: Sequence[str]) -> int | None:
    return min((at for at in map(text.find, stops) if at >= 0), default=None)


def _candidate(
    draw: Draw,
    ids: list[int],
    logprobs: list[float],
    ended: bool,
    stops: Sequence[str],
    cached: int,
    tokenizer: Decodes,
) -> Candidate:
    """Leaves the terminator out. A token that holds the seam of a stop string is left out of `token_ids` whole."""
    completion_tokens = len(ids)
    kept = ids[:-1] if ended else ids
    turn = tokenizer.decode(kept)
    at = _first_stop(turn, stops) if stops else None
    if at is not None:
        turn, ended = turn[:at], True
        while kept and not turn.startswith(tokenizer.decode(kept)):
            kept = kept[:-1]
    return Candidate(
        draw=draw,
        turn=turn,
        token_ids=tuple(kept),
        token_logprobs=tuple(logprobs[: len(kept)]),
        finish_reason="stop" if ended else "length",
        completion_tokens=completion_tokens,
        cached_tokens=cached,
        seeded=True,
    )
