"""Folds by conversation: what one conversation teaches is never tried on that conversation."""

from __future__ import annotations

import numpy as np
import polars as pl


def assign_folds(conversations: pl.Series, folds: int = 5, seed: int = 0) -> pl.Series:
    """The fold, 0 .. folds - 1, of each row; one conversation lies in one fold, whatever the order of the rows."""
    names = sorted(conversations.unique().to_list())
    assigned = np.random.default_rng(seed).permutation(len(names)) % folds
    return conversations.replace_strict(names, assigned.tolist(), return_dtype=pl.Int64).alias("fold")
