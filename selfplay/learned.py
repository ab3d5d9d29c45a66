"""What was learned: rules and weights, and the models that measured what they were learned from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from selfplay.errors import UsageError

if TYPE_CHECKING:
    from filters.rules import Rules
    from rerank.weights import Weights

Learned = Mapping[str, Mapping[str, Any]]
"""By `rules` or `weights`: the record of `measure.signal_versions`; what is not in it is not checked."""


def load_rules(path: str | None = None) -> Rules:
    """A rule set; the shipped one without a path. Raises UsageError if it cannot be used."""
    from filters import RulesError, load_rules

    try:
        return load_rules(path)
    except RulesError as error:
        raise UsageError(str(error)) from None


def load_weights(path: str | None = None) -> Weights:
    """Ranking weights; the shipped ones without a path. Raises UsageError if they cannot be used."""
    from rerank import WeightsError, load_weights

    try:
        return load_weights(path)
    except WeightsError as error:
        raise UsageError(str(error)) from None
