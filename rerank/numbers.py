"""Numbers of a weights file: read strictly, written short."""

from __future__ import annotations

import math
from typing import Any

from rerank.errors import WeightsError


def floats(raw: Any, where: str) -> tuple[float, ...]:
    """A list of finite numbers.

    Raises:
        WeightsError: It is anything else.
    """
    if not isinstance(raw, list):
        raise WeightsError(f"{where} must be a list of numbers")
    for value in raw:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise WeightsError(f"{where}: {value!r} is no finite number")
    return tuple(float(value) for value in raw)


def number(raw: Any, where: str) -> float:
    """One finite number; raises WeightsError as `floats`."""
    return floats([raw], where)[0]


def short(value: float) -> float:
    """Six significant digits, so that diffs of files can be read."""
    return float(f"{value:.6g}")
