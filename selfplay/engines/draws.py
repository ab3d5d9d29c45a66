"""Noise and truncation: one uniform number per (row, step), turned into a token by inverse CDF.

A row's noise comes from its own seed alone, so that neither its neighbours in the batch nor the order of work
change what it draws. Imported only by engines that compute logits themselves; needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from selfplay.core import Sampling

_BLOCK = 512
"""Tokens per block of the two-level search; a block's cumulative sum is the only one ever materialised."""
_HEADS = (256, 4096)
"""Most probable tokens looked at before a row's nucleus is worth a full sort."""


def uniforms(seeds: Sequence[int], steps: int) -> Tensor:
    """Numbers in [0, 1) that decide the tokens: row i, step t is the t-th output of Philox keyed by seeds[i].

    Philox is the counter-based generator of Salmon et al. 2011 ("Parallel random numbers: as easy as 1, 2, 3").

    Returns:
        float64 [len(seeds), steps], on the CPU.
    """
    table = np.empty((len(seeds), steps))
    for row, seed in enumerate(seeds):
        table[row] = np.random.Generator(np.random.Philox(key=seed % 2**128)).random(steps)
    return torch.from_numpy(table)


def truncate(probs: Tensor, sampling: Sampling) -> Tensor:
    """Sets to zero what top_k, top_p and min_p leave out, in that order; tokens tied with the last kept stay.

    top_p keeps the smallest set of most probable tokens whose share of what top_k left reaches top_p; min_p keeps
    tokens at least min_p times as probable as the most probable one.

    Args:
        probs: [rows, vocab], each row summing to 1.

    Returns:
        [rows, vocab], not renormalised.
    """
    if sampling.top_k <= 0 and sampling.top_p >= 1.0 and sampling.min_p <= 0.0:
        return probs
    vocab = probs.shape[-1]
    threshold = probs.new_zeros(probs.shape[0], 1)
    top_k = min(sampling.top_k, vocab) if sampling.top_k > 0 else 0
    if top_k:
        threshold = probs.topk(top_k, dim=-1).values[:, -1:]
    if sampling.top_p < 1.0:
        kept = probs.masked_fill(probs < threshold, 0.0) if top_k else probs
        threshold = torch.maximum(threshold, _nucleus(kept, sampling.top_p))
    if sampling.min_p > 0.0:
        threshold = torch.maximum(threshold, probs.amax(-1, keepdim=True) * sampling.min_p)
    return probs.masked_fill(probs < threshold, 0.0)


def _nucleus(probs: Tensor, top_p: float) -> Tensor:
    """Probability of the last token that the nucleus of each row takes in; [rows, 1]."""
    target = probs.sum(-1, dtype=torch.float64) * top_p
    found = probs.new_empty(probs.shape[0], 1)
    rows = torch.arange(probs.shape[0], device=probs.device)
    for width in (*_HEADS, probs.shape[-1]):
        width = min(width, probs.shape[-1])
        head = probs[rows].topk(width, dim=-1).values
        mass = head.cumsum(-1, dtype=torch.float64)
        last = torch.searchsorted(mass, target[rows, None]).clamp_(max=width - 1)
        found[rows] = head.gather(-1, last)
        rows = rows[mass[:, -1] < target[rows]]
        if not len(rows) or width == probs.shape[-1]:
            break
    return found


def inverse_cdf(weights: Tensor, u: Tensor) -> Tensor:
    """The token at which the cumulative weight, in vocabulary order, first exceeds u times the total.

    Sums in float64 over blocks, then within one block: as exact as a float64 cumulative sum over the vocabulary, at
    a small part of its price.

    Args:
        weights: [rows, vocab], not negative, each row with a positive sum.
        u: float64 [rows] in [0, 1).

    Returns:
        int64 [rows]; never a token of weight zero.
    """
    rows, vocab = weights.shape
    spare = -vocab % _BLOCK
    if spare:
        weights = torch.nn.functional.pad(weights, (0, spare))
    blocks = weights.view(rows, -1, _BLOCK)
    upto = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    target = (u.to(upto.device) * upto[:, -1])[:, None]
    block = _first_above(upto, target)
    before = torch.where(block > 0, upto.gather(-1, (block - 1).clamp_(min=0)), 0.0)
    inside = blocks[torch.arange(rows, device=weights.device), block[:, 0]].cumsum(-1, dtype=torch.float64)
    token = _first_above(inside, target - before)
    return (block * _BLOCK + token)[:, 0]


def _first_above(cumulative: Tensor, target: Tensor) -> Tensor:
    """Index of the first entry above target; where rounding leaves none, of the last that rose. [rows, 1]."""
    last = cumulative[:, -1:]
    highest = torch.nextafter(last, torch.zeros_like(last))
    return torch.searchsorted(cumulative, torch.minimum(target, highest), right=True).clamp_(
        max=cumulative.shape[-1] - 1
    )


def pick(logits: Tensor, temperature: Tensor, sampling: Sampling, u: Tensor) -> tuple[Tensor, Tensor]:
    """Draws one token per row.

    Args:
        logits: float32 [rows, vocab].
        temperature: float32 [rows]; 0 takes the most probable token (the first of equals).
        u: float64 [rows] in [0, 1).

    Returns:
        tokens int64 [rows], and their logprobs (nats) at temperature 1 under the whole distribution, float32 [rows].
    """
    greedy = temperature == 0
    if bool(greedy.all()):
        tokens = logits.argmax(-1)
    else:
        probs = (logits / torch.where(greedy, 1.0, temperature)[:, None]).softmax(-1)
        tokens = inverse_cdf(truncate(probs, sampling), u)
        if bool(greedy.any()):
            tokens = torch.where(greedy, logits.argmax(-1), tokens)
    return tokens, logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
