"""The bootstrap that draws whole conversations, never rows: turns of one conversation are no independent witnesses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.intp]


def clusters(groups: NDArray[Any]) -> list[Rows]:
    """Row numbers of each conversation, by its sorted name.

    Args:
        groups: Conversation of each row, shape (n,).
    """
    names, index = np.unique(groups, return_inverse=True)
    order = np.argsort(index, kind="stable")
    return np.split(order, np.searchsorted(index[order], np.arange(1, len(names))))


def resampled(members: Sequence[Rows], rng: np.random.Generator) -> Rows:
    """Rows of as many conversations as there are, drawn with replacement."""
    return np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
