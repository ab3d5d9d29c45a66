"""Attention over a branching prefix cache: what several rows share is stored, and read, once.

Two shapes of work, both run through the model's own layers by a custom attention function that transformers lets us
register by name:

- `Packed`: many sequences that may share beginnings, laid end to end without padding in one forward pass.
- `Branches`: one new token for each of many rows, where all rows of a site share its prompt. The queries of all rows
  of a site meet the prompt's keys as one matrix product, and each row's own tokens lie apart. This is the
  decomposition of Hydragen (Juravsky et al. 2024, arXiv 2402.05099); where they merge two attentions by their
  log-sum-exp, we take one softmax over both parts' scores, which is the same number.

Knows keys, values and positions; nothing of tokens, sampling or models' names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from selfplay.engines.pages import Page, joined

ATTENTION = "selfplay_branching"
"""Name under which transformers knows the attention function."""
_SHARE = 16
"""Shared beginnings shorter than this are computed again: gathering their keys costs more."""
_ABREAST = 64
"""Tokens of continuations that look at each other's keys only to have them masked, after a short prefix."""


class Unsupported(Exception):
    """A layer asked for a kind of attention that this module does not compute."""


class Attends(Protocol):
    """What the attention function hands a layer's queries, keys and values to."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Takes query [batch, heads, time, dim], key and value [batch, kv_heads, time, dim]; gives query's shape."""
        ...


def register() -> None:
    """Makes the attention function known to transformers; safe to call twice."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _attention)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    branches: Attends | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The function transformers calls in every layer; `branches` is handed through by the model's forward."""
    for name in ("sliding_window", "softcap", "s_aux", "position_bias", "attention_chunk_size"):
        if options.get(name) is not None:
            raise Unsupported(name)
    if branches is None or attention_mask is not None:
        raise Unsupported("the model keeps its own mask or drops our argument")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return branches.attend(module.layer_idx, query, key, value, scale).transpose(1, 2), None


@dataclass(frozen=True, slots=True)
class Block:
    """Queries at packed positions start..stop that look at the same keys.

    Attributes:
        keys: Places of the keys; None where they are the queries' own positions.
        mask: Added to the scores [stop - start, keys]; None where the block is plainly causal.
    """

    start: int
    stop: int
    keys: Tensor | None = None
    mask: Tensor | None = None


class Packed:
    """Sequences laid end to end, each computing only what neither pages nor the one before it hold.

    A *place* counts through all pages first and then through the packed positions.

    Args:
        pages: Per sequence, the pages that hold its beginning; never all of it.

    Attributes:
        tokens: int64 [1, total], with `positions` [1, total] counted within each sequence.
        where: Per sequence, the places of all its tokens, the shared ones included.
        ends: Per sequence, the packed position of its last token.
        shared: Per sequence, how many of its tokens another sequence holds too and computes.
    """

    def __init__(
        self,
        sequences: Sequence[Sequence[int]],
        dtype: torch.dtype,
        device: torch.device,
        pages: Sequence[Sequence[Page]] = (),
    ) -> None:
        self.where: list[Tensor] = []
        self.ends: list[int] = []
        self.shared: list[int] = []
        self._dtype, self._device = dtype, device
        self._tokens: list[int] = []
        self._positions: list[int] = []
        self._blocks: list[Block] = []
        self._stores: Branches | None = None
        self._pages = list({id(page): page for held in pages for page in held}.values())
        places, self._offset = {}, 0
        for page in self._pages:
            places[id(page)] = torch.arange(self._offset, self._offset + len(page))
            self._offset += len(page)
        before: tuple[Sequence[int], list[int]] = ((), [])
        seen: set[int] = set()
        for number, sequence in enumerate(sequences):
            held = [id(page) for page in pages[number]] if pages else []
            common = common_prefix(before[0], sequence) if self.where and held == before[1] else 0
            self._append(sequence, [places[page] for page in held], common)
            own = self.shared.pop()
            self.shared.append(own or sum(len(places[page]) for page in held if page in seen))
            seen.update(held)
            before = (sequence, held)

    def _append(self, sequence: Sequence[int], pages: Sequence[Tensor], common: int) -> None:
        paged, length = sum(map(len, pages)), len(sequence)
        shared = common if common - paged >= min(_SHARE, length - paged) else 0
        known = max(paged, shared)
        start = len(self._tokens)
        own = torch.arange(start, start + length - known) + self._offset
        where = torch.cat([self.where[-1][:shared], own]) if shared else torch.cat([*pages, own])
        if known < length:
            self._tokens += sequence[known:]
            self._positions += range(known, length)
            keys = where.to(self._device) if known else None
            mask = self._bias(torch.ones(length - known, length).triu(known + 1) > 0) if known else None
            self._blocks.append(Block(start, start + length - known, keys, mask))
        self.where.append(where)
        self.ends.append(int(where[-1]) - self._offset)
        self.shared.append(shared)

    def branch(self, index: int, continuations: Sequence[Sequence[int]]) -> list[Tensor]:
        """Adds tokens that follow sequence `index`, each continuation blind to the others.

        Returns:
            Per continuation, its packed positions.
        """
        prefix = self.where[index]
        spans: list[Tensor] = []
        abreast: list[int] = []
        for continuation in continuations:
            if abreast and sum(abreast) + len(continuation) > max(_ABREAST, len(prefix) // 2):
                self._close(prefix, abreast)
                abreast = []
            spans.append(torch.arange(len(self._tokens), len(self._tokens) + len(continuation)))
            self._tokens += continuation
            self._positions += range(len(prefix), len(prefix) + len(continuation))
            abreast.append(len(continuation))
        self._close(prefix, abreast)
        return spans

    def _close(self, prefix: Tensor, lengths: Sequence[int]) -> None:
        """Makes one block of the last continuations."""
        total, stop = sum(lengths), len(self._tokens)
        if total:
            of = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
            blind = (of[:, None] != of[None, :]) | (torch.ones(total, total).triu(1) > 0)
            hidden = torch.cat([torch.zeros(total, len(prefix), dtype=torch.bool), blind], 1)
            keys = torch.cat([prefix, torch.arange(stop - total, stop) + self._offset]).to(self._device)
            self._blocks.append(Block(stop - total, stop, keys, self._bias(hidden)))

    def _bias(self, hidden: Tensor) -> Tensor:
        zeros = torch.zeros(hidden.shape, dtype=self._dtype)
        return zeros.masked_fill_(hidden, float("-inf")).to(self._device)

    @property
    def tokens(self) -> Tensor:
        return torch.tensor([self._tokens], device=self._device)

    @property
    def positions(self) -> Tensor:
        return torch.tensor([self._positions], device=self._device)

    def keep(self, branches: Branches) -> None:
        """From now on every layer's keys and values go to `branches` too."""
        self._stores = branches

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        held_keys = joined([page.keys[layer] for page in self._pages], key)
        held_values = joined([page.values[layer] for page in self._pages], value)
        if self._stores is not None:
            self._stores.store(layer, held_keys, held_values)
        grouped = query.shape[1] != key.shape[1]
        parts = []
        for block in self._blocks:
            if block.keys is None:
                keys, values = key[:, :, block.start : block.stop], value[:, :, block.start : block.stop]
            else:
                keys, values = held_keys.index_select(2, block.keys), held_values.index_select(2, block.keys)
            parts.append(
                scaled_dot_product_attention(
                    query[:, :, block.start : block.stop],
                    keys,
                    values,
                    attn_mask=block.mask,
                    is_causal=block.mask is None,
                    scale=scaling,
                    enable_gqa=grouped,
                )
            )
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


class Branches:
    """Keys and values of several prompts, each shared by the rows that branch off it, and of the rows' own tokens.

    Prompts lie in [kv_heads, sites, longest, dim] per layer, padded at the right and masked; the rows' own tokens in
    [kv_heads, rows, capacity, dim], filled from the left, all rows at the same step.

    Args:
        where: Per site, the places of its prompt (`Packed.where`).
        rows: Per site, how many rows branch off it.
    """

    def __init__(self, where: Sequence[Tensor], rows: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        lengths = torch.tensor([len(positions) for positions in where])
        longest = int(lengths.max())
        self._gather = torch.nn.utils.rnn.pad_sequence(list(where), batch_first=True).flatten().to(device)
        beyond = torch.arange(longest)[None, :] >= lengths[:, None]
        self._bias: Tensor | None = None
        if bool(beyond.any()):
            bias = torch.zeros(beyond.shape, dtype=dtype).masked_fill_(beyond, float("-inf"))
            self._bias = bias[None, :, None, :].to(device)
        self._device = device
        self._site = torch.repeat_interleave(torch.arange(len(where)), torch.tensor(rows))
        self._lengths = lengths
        self._sites, self._longest, self._step = len(where), longest, 0
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._own_keys: dict[int, Tensor] = {}
        self._own_values: dict[int, Tensor] = {}
        self._lay_out()

    def _lay_out(self) -> None:
        """Gives every row a slot in the grid [sites, widest]; `_slots` is None where rows fill the grid in order."""
        counts = torch.bincount(self._site, minlength=self._sites)
        self._widest = int(counts.max())
        first = counts.cumsum(0) - counts
        slots = self._site * self._widest + torch.arange(len(self._site)) - first[self._site]
        full = len(slots) == self._sites * self._widest
        self._slots = None if full else slots.to(self._device)
        self._prompt_lengths = self._lengths[self._site].to(self._device)

    @property
    def positions(self) -> Tensor:
        """Position of each row's next token; int64 [rows, 1]."""
        return (self._prompt_lengths + self._step)[:, None]

    def advance(self) -> None:
        """Call after each forward pass."""
        self._step += 1

    def keep(self, rows: Tensor) -> None:
        """Drops all rows but these (int64, ascending, on the CPU), and prompts that no row is left of."""
        self._site = self._site[rows]
        live = self._site.unique()
        chosen = rows.to(self._device)
        for own in (self._own_keys, self._own_values):
            for layer, held in own.items():
                own[layer] = held.index_select(1, chosen)
        if len(live) < self._sites:
            sites = live.to(self._device)
            for prompts in (self._keys, self._values):
                for layer, held in prompts.items():
                    prompts[layer] = held.index_select(1, sites)
            if self._bias is not None:
                self._bias = self._bias.index_select(1, sites)
            self._lengths, self._sites = self._lengths[live], len(live)
            self._site = torch.searchsorted(live, self._site)
        self._lay_out()

    def store(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Takes keys and values [1, kv_heads, places, dim] of all prompts, those of pages before the packed ones."""
        shape = (key.shape[1], self._sites, self._longest, -1)
        self._keys[layer] = key[0].index_select(1, self._gather).view(shape)
        self._values[layer] = value[0].index_select(1, self._gather).view(shape)

    def _extend(self, own: dict[int, Tensor], layer: int, new: Tensor) -> Tensor:
        """Puts new [rows, kv_heads, 1, dim] at the current step; returns [kv_heads * rows, step + 1, dim]."""
        rows, heads, _, dim = new.shape
        held = own.get(layer)
        if held is None or held.shape[2] <= self._step:
            # Grows by doubling, so that a long limit costs memory only when rows really run that long.
            grown = new.new_empty(heads, rows, max(32, 2 * self._step), dim)
            if held is not None:
                grown[:, :, : self._step] = held[:, :, : self._step]
            own[layer] = held = grown
        held[:, :, self._step] = new[:, :, 0].transpose(0, 1)
        return held[:, :, : self._step + 1].flatten(0, 1)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        rows, heads, _, dim = query.shape
        kv_heads = key.shape[1]
        keys, values = self._keys[layer].flatten(0, 1), self._values[layer].flatten(0, 1)
        own_keys, own_values = self._extend(self._own_keys, layer, key), self._extend(self._own_values, layer, value)

        grouped = (query[:, :, 0] * scaling).view(rows, kv_heads, -1, dim).transpose(0, 1)
        on_prompt = torch.bmm(self._to_grid(grouped).reshape(keys.shape[0], -1, dim), keys.transpose(1, 2))
        if self._bias is not None:
            on_prompt = (on_prompt.view(kv_heads, self._sites, -1, self._longest) + self._bias).flatten(0, 1)
        on_prompt = self._from_grid(on_prompt.view(kv_heads, -1, heads // kv_heads, self._longest)).flatten(0, 1)
        on_own = torch.bmm(grouped.reshape(kv_heads * rows, -1, dim), own_keys.transpose(1, 2))

        scores = torch.cat([on_prompt, on_own], -1)
        weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
        prompt_weights, own_weights = weights.split([self._longest, self._step + 1], -1)
        prompt_weights = self._to_grid(prompt_weights.unflatten(0, (kv_heads, rows)))
        from_prompt = torch.bmm(prompt_weights.reshape(keys.shape[0], -1, self._longest), values)
        from_prompt = self._from_grid(from_prompt.view(kv_heads, -1, heads // kv_heads, values.shape[-1]))
        out = from_prompt + torch.bmm(own_weights, own_values).view(from_prompt.shape)
        return out.transpose(0, 1).reshape(rows, heads, 1, -1)

    def _to_grid(self, held: Tensor) -> Tensor:
        """[kv_heads, rows, …] to [kv_heads, sites * widest, …]; empty slots are zero."""
        if self._slots is None:
            return held
        grid = held.new_zeros(held.shape[0], self._sites * self._widest, *held.shape[2:])
        return grid.index_copy_(1, self._slots, held)

    def _from_grid(self, grid: Tensor) -> Tensor:
        return grid if self._slots is None else grid.index_select(1, self._slots)


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of tokens at which both begin alike."""
    limit = min(len(one), len(other))
    if one[:limit] == other[:limit]:
        return limit
    low, high = 0, limit
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle)
    return low
