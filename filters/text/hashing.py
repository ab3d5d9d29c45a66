"""Joins on 64-bit keys without sorting: a hash table in whole columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F)


def mix(keys: Keys) -> Keys:
    """Spreads what differs over all bits (the finaliser of MurmurHash3, shortened)."""
    keys = (keys ^ (keys >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    return np.asarray(keys ^ (keys >> np.uint64(29)), dtype=np.uint64)


def paired(keys: Keys, owner: NDArray[np.intp]) -> Keys:
    """Keys that also tell which owner they belong to."""
    return mix(keys + owner.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))


class Index:
    """Where a key first got its place among `keys`; equal keys share one place.

    Level by level: all keys are written to a table at once, the last writer of a slot keeps it, and those who lost
    their slot to a different key go to the next, smaller table. With slots to spare few do.
    """

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self._levels: list[tuple[np.uint64, np.uint64, NDArray[np.int32]]] = []
        self.place = np.zeros(len(keys), dtype=np.int32)
        """For each key the index of the equal key that stands for all of them; shape (n,)."""
        left = np.arange(len(keys), dtype=np.int32)
        while left.size:
            bits = max(4, int(left.size * 6).bit_length())
            multiplier = np.uint64(_MULTIPLIERS[len(self._levels) % 4] * (2 * len(self._levels) + 1) % (1 << 64))
            shift = np.uint64(64 - bits)
            slots = np.full(1 << bits, -1, dtype=np.int32)
            own = keys.take(left)
            slot = ((own * multiplier) >> shift).view(np.int64)  # What numpy indexes by without a copy.
            slots[slot] = left
            kept = slots.take(slot)
            same = keys.take(kept) == own
            self.place[left[same]] = kept[same]
            self._levels.append((multiplier, shift, slots))
            left = left[~same]

    @property
    def first(self) -> NDArray[np.bool_]:
        """True once for every distinct key, shape (n,)."""
        return np.asarray(self.place == np.arange(len(self.place), dtype=np.int32), dtype=np.bool_)

    def find(self, wanted: Keys) -> NDArray[np.int32]:
        """The place of each wanted key, -1 where there is none; shape (m,)."""
        found = np.full(len(wanted), -1, dtype=np.int32)
        left: NDArray[np.intp] | None = None  # All of them.
        for multiplier, shift, slots in self._levels:
            own = wanted if left is None else wanted.take(left)
            kept = slots.take(((own * multiplier) >> shift).view(np.int64))
            taken = kept >= 0
            same = taken & (self.keys.take(kept) == own)
            # A slot that is empty was never fought for: its key is in no later table either.
            unlike = np.flatnonzero(taken & ~same)
            if left is None:
                found, left = np.where(same, kept, np.int32(-1)), unlike
            else:
                found[left[same]] = kept[same]
                left = left.take(unlike)
        return found
