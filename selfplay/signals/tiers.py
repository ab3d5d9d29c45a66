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
    SCORED,
    SIGNALS,
    available_tiers,
    default_scorer,
    expected_versions,
    measure,
    mend,
    mismatches,
    missing_tiers,
)

CHOICES: dict[str, tuple[str, ...]] = {
    "auto": ("embedding", *SCORED),
    "text": (),
    "text+embedding": ("embedding",),
    "text+embedding+state": ("embedding", "state"),
    "all": ("embedding", *SCORED),
}
"""What `--tiers` asks for beside the text tier. `auto` takes of these what rules and weights read (`learned.reads`) and
does without what cannot be had; the others must be met. A cross-encoder's tier comes on top where one is named, and
with `auto` and `all` where the weights know one."""


@dataclass(frozen=True, slots=True)
class SignalModels:
    """The models that users may name to measure with.

    Attributes:
        scorer: Measures states and likelihoods; None is SmolLM2-135M.
        cross_encoder: Measures the cross tier; there is none by default.
    """

    scorer: str | None = None
    cross_encoder: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """By tier, the models that were named."""
        found = {**dict.fromkeys(SCORED, self.scorer), "cross": self.cross_encoder}
        return {tier: model for tier, model in found.items() if model is not None}


def wanted(
    choice: str, learned: Learned, models: SignalModels, reads: Collection[str] = tuple(SIGNALS)
) -> tuple[str, ...]:
    """The tiers that `--tiers` asks for, with these weights and named models.

    Args:
        reads: Those that `auto` takes, of those that can be had.

    Raises:
        UsageError: A scorer is named for a choice that scores nothing.
    """
    tiers = tuple(tier for tier in CHOICES[choice] if choice != "auto" or tier in reads)
    if models.scorer and not {*SCORED} & {*tiers}:
        raise UsageError(f"--scorer-model scores turns, which --tiers {choice} does without; leave one out")
    known = choice in ("auto", "all") and PARTS["cross"] in learned.get("weights", {})
    return (*tiers, "cross") if models.cross_encoder or known else tiers


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


def settle(
    choice: str,
    learned: Learned,
    models: SignalModels | None = None,
    reads: Collection[str] = tuple(SIGNALS),
) -> tuple[tuple[str, ...], list[str]]:
    """The tiers of a run, decided before it starts, and what is left out, one line each. Arguments as `wanted`.

    Raises:
        SelfplayError: A tier asked for by name, or by naming its model, cannot be had.
    """
    models = models or SignalModels()
    reasons = {tier: obstacle(tier, learned, models) for tier in wanted(choice, learned, models, reads)}
    for tier, reason in reasons.items():
        if reason and (choice != "auto" or tier in models.named):
            asked = f"--tiers {choice}: " if choice != "auto" else ""
            raise SelfplayError(f"{asked}no {tier} signals: {reason}")
    told = {reason: [tier for tier in reasons if reasons[tier] == reason] for reason in reasons.values() if reason}
    notes = [f"no {' and '.join(without)} signals: {reason}" for reason, without in told.items()]
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
            layer: Layer of the scorer whose states rules and weights read; None where they read none, and then
                none are measured.

        Raises:
            SelfplayError: Rules or weights do not know a model that was named.
        """
        self.notes: list[str] = []
        self._unwanted = [name for tier, names in SIGNALS.items() if tier not in tiers for name in names]
        self._tiers = {tier for tier in tiers if tier in reads and (tier != "state" or layer is not None)}
        self._learned = learned
        self._skip_cut, self._layer = skip_cut, layer
        self._named = models or SignalModels()
        self._optional = self._tiers - self._named.named.keys() if optional else set()
        for tier in sorted(self._named.named.keys() & self._tiers):
            reason = obstacle(tier, learned, self._named)
            if reason:
                raise SelfplayError(f"no {tier} signals: {reason}")
        self._models: dict[str, dict[str, Any]] = {}
        self._unopposed = set() if scorer is None else {*SCORED}
        self._own: Engine | None = None
        if scorer is not None:
            self._models["scorer"] = {
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
        missing = [tier for tier in missing_tiers(table) if tier in self._tiers]
        for part in dict.fromkeys(PARTS[tier] for tier in missing):  # what one model measures shares passes
            table = self._measured(table, part, [tier for tier in missing if PARTS[tier] == part])
        return table

    def control(self, table: pl.DataFrame) -> pl.DataFrame:
        """The table with the control signals, by the scorer of the likelihoods, wanted or not: no rules or weights read
        them, so it need not be the one that those were learned with.

        Raises:
            SelfplayError: The scorer cannot be had.
        """
        return measure(table, {"control"}, skip_cut=self._skip_cut, **self._loaded("scorer"))

    def _measured(self, table: pl.DataFrame, part: str, tiers: list[str]) -> pl.DataFrame:
        """With the signals of `tiers`, all of one model."""
        told = " and ".join(tiers)
        try:
            for tier in tiers:
                if tier not in self._unopposed:
                    if reason := obstacle(tier, self._learned, self._named):
                        raise SelfplayError(reason)
                    self._unopposed.add(tier)
            layer = self._layer if "state" in tiers else None
            return measure(table, tiers, skip_cut=self._skip_cut, layer=layer, **self._loaded(part))
        except SelfplayError as error:
            if not {*tiers} <= self._optional:
                raise SelfplayError(f"no {told} signals: {error}") from None
            self._tiers -= {*tiers}
            self.notes.append(f"without {told} signals: {error}")
            return table

    def _loaded(self, part: str) -> dict[str, Any]:
        if part not in self._models:
            self._models[part] = self._load(part)
        return self._models[part]

    def _load(self, part: str) -> dict[str, Any]:
        if part == "embedder":
            return {"embedder": load_embedder()}
        if part == "cross_encoder":
            return {"cross_encoder": load_cross_encoder(str(self._named.cross_encoder))}
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
