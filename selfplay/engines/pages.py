"""Keys and values of the beginnings of prompts, kept between calls, in pages of a fixed number of tokens.

A page is computed from its own tokens and the pages before it, alone, whoever asks and whatever else is in memory:
its numbers depend on nothing but the model and the tokens. So a result is the same to the last bit whether its pages
were kept or computed anew, and a run that was killed and resumed equals one that was not. The idea is paged attention
(Kwon et al. 2023, arXiv 2309.06180) with prefix reuse by content as in SGLang's RadixAttention (Zheng et al. 2024,
arXiv 2312.07104), one size of page instead of a tree.

Knows keys, values and token ids; nothing of models.
"""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True, slots=True)
class Page:
    """Keys and values of neighbouring tokens, each [layers, kv_heads, tokens, dim]."""

    keys: Tensor
    values: Tensor

    def __len__(self) -> int:
        return int(self.keys.shape[2])


class Pages:
    """The pages used last, found by the tokens that they and all before them hold. Safe to use from several threads.

    Args:
        size: Tokens per page.
        room: Bytes to keep at most.
    """

    def __init__(self, size: int, room: int) -> None:
        self.size, self.room = size, room
        self._kept: OrderedDict[bytes, Page] = OrderedDict()
        self._used = 0
        self._lock = threading.Lock()

    def names(self, tokens: Sequence[int]) -> Iterator[tuple[bytes, int]]:
        """Name and first token of each full page of a sequence; its last token, whose logits are wanted, is in none."""
        name = b""
        for start in range(0, (len(tokens) - 1) // self.size * self.size, self.size):
            piece = array("q", tokens[start : start + self.size])
            name = hashlib.blake2b(name + piece.tobytes(), digest_size=16).digest()
            yield name, start

    def get(self, name: bytes) -> Page | None:
        with self._lock:
            page = self._kept.get(name)
            if page is not None:
                self._kept.move_to_end(name)
            return page

    def held(self, tokens: Sequence[int]) -> int:
        """How many tokens at the beginning of a sequence are in kept pages."""
        with self._lock:
            missing = next((start for name, start in self.names(tokens) if name not in self._kept), None)
        return (len(tokens) - 1) // self.size * self.size if missing is None else missing

    def put(self, name: bytes, page: Page) -> None:
        with self._lock:
            if name in self._kept:
                return
            self._kept[name] = page
            self._used += _bytes(page)
            while self._used > self.room and self._kept:
                self._used -= _bytes(self._kept.popitem(last=False)[1])

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._used = 0


class NextPage:
    """Attention of one page's tokens over the pages before it and over themselves; gathers the page on the way."""

    def __init__(self, before: Sequence[Page], size: int, dtype: torch.dtype, device: torch.device) -> None:
        self._before = before
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self.start = sum(map(len, before))
        hidden = torch.ones(size, self.start + size).triu(self.start + 1) > 0
        self._mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf")).to(device)

    def page(self) -> Page:
        """The page, once the model's layers have all been run."""
        return Page(torch.stack(self._keys), torch.stack(self._values))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        if layer != len(self._keys):
            raise RuntimeError(f"layer {layer} was run where layer {len(self._keys)} was expected")
        self._keys.append(key[0])
        self._values.append(value[0])
        return scaled_dot_product_attention(
            query,
            joined([page.keys[layer] for page in self._before], key),
            joined([page.values[layer] for page in self._before], value),
            attn_mask=self._mask if self._before else None,
            is_causal=not self._before,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )


def joined(before: Sequence[Tensor], own: Tensor) -> Tensor:
    """Pages [kv_heads, tokens, dim] and what follows them [1, kv_heads, tokens, dim], as one of the latter shape."""
    return torch.cat([*before, own[0]], 1)[None] if before else own


def _bytes(page: Page) -> int:
    return int(page.keys.nbytes + page.values.nbytes)
