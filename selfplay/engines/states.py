"""The residual stream of a transformers model after one of its layers: caught in passing, and its mean over a turn.

Layers are counted from 1, so that layer k is what `hidden_states[k]` of transformers holds; of the last layer it is the
state before the final norm, which transformers does not show. Knows models and tensors; nothing of tokens or text.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module, ModuleList

from selfplay.errors import EngineError


def layers_of(model: Any) -> list[Module]:
    """The decoder layers in order; none where the architecture does not keep them in one list."""
    count = model.config.get_text_config().num_hidden_layers
    lists = (part for part in model.base_model.modules() if isinstance(part, ModuleList) and len(part) == count)
    return list(next(lists, ()))


def check_layer(model: Any, layer: int, name: str) -> None:
    """Raises EngineError where the model has no such layer."""
    count = len(layers_of(model))
    if not 1 <= layer <= count:
        raise EngineError(f"cannot read the state after layer {layer} of {name}: it has layers 1 to {count}")


@contextmanager
def caught(model: Any, layer: int | None) -> Iterator[list[Tensor]]:
    """Collects the state [batch, time, hidden] after `layer` of every pass that this thread makes within the block.

    Nothing else is kept: asking transformers for hidden states would hold those of all layers. Another thread may use
    the model meanwhile. None collects nothing.
    """
    found: list[Tensor] = []
    if layer is None:
        yield found
        return
    mine = threading.get_ident()

    def take(module: Module, inputs: Any, output: Any) -> None:
        if threading.get_ident() == mine:
            found.append(output[0] if isinstance(output, tuple) else output)

    handle = layers_of(model)[layer - 1].register_forward_hook(take)
    try:
        yield found
    finally:
        handle.remove()


def mean(states: Tensor) -> Tensor:
    """Over the tokens of [tokens, hidden], in float32."""
    return states.float().mean(0)


class RunningMean:
    """Means over each row's first tokens, added up as the rows are decoded.

    Args:
        rows: Number of rows.
        most: Tokens of a row that count.
    """

    def __init__(self, rows: int, most: int) -> None:
        self.most = most
        self._counts = torch.zeros(rows, dtype=torch.int64)
        self._sums: Tensor | None = None

    def add(self, states: Tensor, rows: Tensor, counted: Tensor) -> None:
        """Takes in the states of one token of each row.

        Args:
            states: float32 [present, hidden].
            rows: int64 [present], on the CPU: which rows these are.
            counted: bool [present], on the CPU: whose token belongs to their turn.
        """
        if self._sums is None:
            self._sums = states.new_zeros(len(self._counts), states.shape[1])
        counted = counted & (self._counts[rows] < self.most)
        self._counts[rows] += counted
        weights = counted.to(states)[:, None]
        self._sums.index_add_(0, rows.to(states.device), states * weights)

    def of(self, row: int, length: int) -> NDArray[np.float32] | None:
        """The mean over the row's first `length` tokens, or `most`; None where not just these were taken in."""
        wanted = min(length, self.most)
        if self._sums is None or not wanted or int(self._counts[row]) != wanted:
            return None
        self._sums = self._sums.cpu()
        found: NDArray[np.float32] = (self._sums[row] / wanted).numpy()
        return found
