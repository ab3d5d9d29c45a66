"""What a rules file's numbers must be."""

from __future__ import annotations

import sys
from typing import Any

from filters.errors import RulesError


def is_number(value: Any) -> bool:
    """Whether a value from JSON is a number that a float can hold: JSON has integers that none can."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def numbers(value: Any, length: int, place: str) -> tuple[float, ...]:
    """A list of finite numbers from JSON. Raises: RulesError with the place."""
    if not isinstance(value, list) or len(value) != length:
        raise RulesError(f"{place} must be a list of {length} numbers")
    if not all(map(is_number, value)):
        raise RulesError(f"{place} holds something that is not a number")
    return tuple(float(x) for x in value)


def by_label(value: Any, length: int, place: str, labels: tuple[str, ...]) -> tuple[tuple[float, ...], ...]:
    """An object with one such list for each label, in their order. Raises: RulesError with the place."""
    if not isinstance(value, dict) or set(value) != set(labels):
        raise RulesError(f"{place} must have one list for each label")
    return tuple(numbers(value[label], length, f"{place}.{label}") for label in labels)


def short(values: tuple[float, ...]) -> list[float]:
    """Numbers with six significant digits, as files keep them."""
    return [float(f"{value:.6g}") for value in values]
