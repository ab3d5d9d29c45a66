"""Which signal tiers to measure, whether they can be had here, who measures, and whether rules and weights know them.

The one place that `run`, `filter` and `rank` ask. The text tier needs nothing and is always there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from selfplay.engines.base import Engine
from selfplay.errors import SelfplayError, UsageError
from selfplay.learned import Learned
from selfplay.prompting.templates import ChatTemplate
from selfplay.signals.cross import load_cross_encoder
from selfplay.signals.embedding import load_embedder
from selfplay.signals.measure import (
    PARTS,
    SIGNALS,
    STATE,
    available_tiers,
    default_scorer,
    expected_versions,
    measure,
    mend,
    mismatches,
    missing_tiers,
)

CHOICES: dict[str, tuple[str, ...]] = {
    "auto": ("embedding", "likelihood"),
    "text": (),
    "text+embedding": ("embedding",),
    "all": ("embedding", "likelihood"),
}
"""What `--tiers` asks for beside the text tier. `auto` does without what cannot be had; the others must be met.
A cross-encoder's tier comes on top where one is named, and with `auto` and `all` where the weights know one."""


@dataclass(frozen=True, slots=True)
class SignalModels:
    """The models that users may name to measure with.

    Attributes:
        scorer: Measures the likelihoods; None is SmolLM2-135M.
        cross_encoder: Measures the cross tier; there is none by default.
    """

    scorer: str | None = None
    cross_encoder: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """By tier, the models that were named."""
        found = {"likelihood": self.scorer, "cross": self.cross_encoder}
        return {tier: model for tier, model in found.items() if model is not None}


def wanted(choice: str, learned: Learned, models: SignalModels) -> tuple[str, ...]:
    """The tiers that `--tiers` asks for, with these weights and named models.

    Raises:
        UsageError: A scorer is named for a choice that scores nothing.
    """
    if models.scorer and "likelihood" not in CHOICES[choice]:
        raise UsageError(f"--scorer-model measures likelihoods, which --tiers {choice} does without; leave one out")
    known = choice in ("auto", "all") and PARTS["cross"] in learned.get("weights", {})
    return (*CHOICES[choice], "cross") if models.cross_encoder or known else CHOICES[choice]


@dataclass(frozen=True, slots=True)
class Scorer:
    """An engine that scores, with its template.

    Attributes:
        own_tokens: It also sampled the turns, so their ids are its own.
        own_logprobs: And it did so after the prompts that scoring renders, so the turns' logprobs are known.
    """

    engine: Engine
    template: ChatTemplate
    own_tokens: bool = False
    own_logprobs: bool = False


def obstacle(tier: str, learned: Learned, models: SignalModels | None = None) -> str | None:
    """Why a tier cannot be measured here as rules and weights expect it; None if it can. Loads no weights of models.

    Raises:
        SelfplayError: The scorer's files cannot be got.
    """
    missing = available_tiers()[1]
    if tier in missing:
        return missing[tier]
    model = (models or SignalModels()).named.get(tier)
    if tier == "cross":
        return _cross_obstacle(model, learned.get("weights", {}))
    records = {what: record for what, record in learned.items() if record.get(PARTS[tier])}
    mine = expected_versions(tier, model) if records else {}
    for what, record in records.items():
        reasons = mismatches(mine, record, what, model)
        if tier in reasons:
            return reasons[tier]
    return None


def _cross_obstacle(model: str | None, weights: Mapping[str, Any]) -> str | None:
    known = weights.get(PARTS["cross"])
    if model is None:
        learned = f", which the weights were learned with: {known['model']}" if known else ""
        return f"no cross-encoder is shipped; name one with --cross-encoder{learned}"
    if not known:
        return f"the weights were learned without a cross-encoder; {mend('cross', 'weights', model)}"
    return mismatches(expected_versions("cross", model), weights, asked=model).get("cross")


def settle(choice: str, learned: Learned, models: SignalModels | None = None) -> tuple[tuple[str, ...], list[str]]:
    """The tiers of a run, decided before it starts, and what is left out, one line each.

    Raises:
        SelfplayError: A tier asked for by name, or by naming its model, cannot be had.
    """
    models = models or SignalModels()
    reasons = {tier: obstacle(tier, learned, models) for tier in wanted(choice, learned, models)}
    for tier, reason in reasons.items():
        if reason and (choice != "auto" or tier in models.named):
            asked = f"--tiers {choice}: " if choice != "auto" else ""
            raise SelfplayError(f"{asked}no {tier} signals: {reason}")
    notes = [f"no {tier} signals: {reason}" for tier, reason in reasons.items() if reason]
    return ("text", *(tier for tier, reason in reasons.items() if not reason)), notes


class Measurer:
    """Adds the signals that tables lack, and takes away those not wanted. A model is loaded once, when first needed.

    Attributes:
        notes: What was left out, one line each.
    """

    def __init__(
        self,
        tiers: Collection[str],
        learned: Learned,
        *,
        optional: bool = False,
        reads: Collection[str] = tuple(SIGNALS),
        scorer: Scorer | None = None,
        skip_cut: bool = False,
        models: SignalModels | None = None,
        layer: int | None = None,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            tiers: Whose signals are wanted.
            learned: What the models must be.
            optional: A tier that cannot be measured is noted and left out, else it is an error.
            reads: Tiers that the rules or weights read; others are not measured.
            scorer: Scores instead of one of our own; left open.
            models: The models that were named. Their tiers are never optional.
            skip_cut: Turns cut at the token limit get no likelihoods, since none of them will be chosen.
            layer: Layer of the scorer whose states the rules read. They come with the likelihoods, or alone where a
                table has those, so that a turn is judged alike wherever its likelihoods were measured.

        Raises:
            SelfplayError: Rules or weights do not know a model that was named.
        """
        self.notes: list[str] = []
        self._unwanted = [name for tier, names in SIGNALS.items() if tier not in tiers for name in names]
        self._tiers = {tier for tier in tiers if tier in reads}
        self._learned = learned
        self._skip_cut, self._layer = skip_cut, layer
        self._named = models or SignalModels()
        self._optional = self._tiers - self._named.named.keys() if optional else set()
        for tier in sorted(self._named.named.keys() & self._tiers):
            reason = obstacle(tier, learned, self._named)
            if reason:
                raise SelfplayError(f"no {tier} signals: {reason}")
        self._models: dict[str, dict[str, Any]] = {}
        self._unopposed = set() if scorer is None else {"likelihood"}
        self._own: Engine | None = None
        if scorer is not None:
            self._models["likelihood"] = {
                "scorer": scorer.engine, "template": scorer.template,
                "own_tokens": scorer.own_tokens, "own_logprobs": scorer.own_logprobs,
            }  # fmt: skip

    def __call__(self, table: pl.DataFrame) -> pl.DataFrame:
        """The table with the signals; see `measure.measure` for the columns it needs.

        Raises:
            SelfplayError: A tier that is not optional cannot be measured here, or only by other models than rules and
                weights were learned with.
        """
        table = table.drop(self._unwanted, strict=False)
        for tier in missing_tiers(table):
            if tier in self._tiers:
                table = self._measured(table, tier, tier)
        if self._layer is not None and "likelihood" in self._tiers and STATE not in table.columns:
            table = self._measured(table, "likelihood", "state")
        return table

    def control(self, table: pl.DataFrame) -> pl.DataFrame:
        """The table with the control signals, by the scorer of the likelihoods, wanted or not: no rules or weights read
        them, so it need not be the one that those were learned with.

        Raises:
            SelfplayError: The scorer cannot be had.
        """
        return measure(table, {"control"}, skip_cut=self._skip_cut, **self._loaded("likelihood"))

    def _measured(self, table: pl.DataFrame, tier: str, what: str) -> pl.DataFrame:
        """With the signals of `what`, the tier or a part of it, by the models of the tier."""
        try:
            if tier not in self._unopposed:
                if reason := obstacle(tier, self._learned, self._named):
                    raise SelfplayError(reason)
                self._unopposed.add(tier)
            layer = self._layer if tier == "likelihood" else None
            return measure(table, {what}, skip_cut=self._skip_cut, layer=layer, **self._loaded(tier))
        except SelfplayError as error:
            if tier not in self._optional:
                raise SelfplayError(f"no {tier} signals: {error}") from None
            self._tiers.remove(tier)
            lacking = "states of the scorer" if what == "state" else f"{tier} signals"
            self.notes.append(f"without {lacking}: {error}")
            return table

    def _loaded(self, tier: str) -> dict[str, Any]:
        if tier not in self._models:
            self._models[tier] = self._load(tier)
        return self._models[tier]

    def _load(self, tier: str) -> dict[str, Any]:
        if tier == "embedding":
            return {"embedder": load_embedder()}
        if tier == "cross":
            return {"cross_encoder": load_cross_encoder(self._named.named[tier])}
        self._own, template = default_scorer(self._named.scorer)
        return {"scorer": self._own, "template": template}

    def close(self) -> None:
        """Closes the scorer that was loaded here."""
        if self._own is not None:
            self._own.close()
            self._own = None

    def __enter__(self) -> Measurer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
