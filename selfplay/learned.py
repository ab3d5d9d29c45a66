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


def reads(rules: Rules | None = None, weights: Weights | None = None, states: bool = True) -> frozenset[str]:
    """The tiers that rules and weights read, for `--tiers auto`.

    Weights have a model for each set of tiers. With the hidden state they do without the likelihoods, which cost four
    passes of the scorer instead of one and beside it add next to nothing.

    Args:
        states: Whether hidden states can be had from the scorer.
    """
    found: frozenset[str] = frozenset()
    for each in (rules, weights):
        tiers = frozenset() if each is None else each.tiers
        tiers = tiers if states else tiers - {"state"}
        found |= tiers - {"likelihood"} if each is weights and "state" in tiers else tiers
    return found


def layer(rules: Rules | None = None, weights: Weights | None = None) -> int | None:
    """The scorer's layer whose states rules and weights read; None where they read none.

    Raises:
        UsageError: They read two different ones.
    """
    found = {each.layer for each in (rules, weights) if each is not None and each.layer is not None}
    if len(found) > 1:
        raise UsageError(
            f"the rules read the scorer's hidden state after another layer than the weights ({min(found)} and "
            f"{max(found)}); learn both anew from the same signals"
        )
    return next(iter(found), None)


def load_weights(path: str | None = None) -> Weights:
    """Ranking weights; the shipped ones without a path. Raises UsageError if they cannot be used."""
    from rerank import WeightsError, load_weights

    try:
        return load_weights(path)
    except WeightsError as error:
        raise UsageError(str(error)) from None
