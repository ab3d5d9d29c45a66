"""Which signal tiers to measure, whether they can be had here, who measures, and whether rules and weights know them.

The one place that `run`, `filter` and `rank` ask. The text tier needs nothing and is always there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import polars as pl

from selfplay.engines.base import Engine
from selfplay.errors import SelfplayError
from selfplay.learned import Learned
from selfplay.prompting.templates import ChatTemplate
from selfplay.signals.embedding import load_embedder
from selfplay.signals.measure import (
    SIGNALS,
    available_tiers,
    default_scorer,
    default_versions,
    measure,
    mismatches,
    missing_tiers,
)

CHOICES: dict[str, tuple[str, ...]] = {
    "auto": ("embedding", "likelihood"),
    "text": (),
    "text+embedding": ("embedding",),
    "all": ("embedding", "likelihood"),
}
"""What `--tiers` asks for beside the text tier. `auto` does without what cannot be had; the others must be met."""


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


def obstacle(tier: str, learned: Learned) -> str | None:
    """Why a tier cannot be measured here as rules and weights expect it; None if it can. Loads no weights of models.

    Raises:
        SelfplayError: The scorer's files cannot be got.
    """
    missing = available_tiers()[1]
    if tier in missing:
        return missing[tier]
    part = "embedder" if tier == "embedding" else "scorer"
    records = {what: record for what, record in learned.items() if record.get(part)}
    mine = default_versions(tier) if records else {}
    for what, record in records.items():
        reasons = mismatches(mine, record, what)
        if tier in reasons:
            return reasons[tier]
    return None


def settle(choice: str, learned: Learned) -> tuple[tuple[str, ...], list[str]]:
    """The tiers of a run, decided before it starts, and what is left out, one line each.

    Raises:
        SelfplayError: A tier asked for by name cannot be had.
    """
    reasons = {tier: obstacle(tier, learned) for tier in CHOICES[choice]}
    notes = [f"no {tier} signals: {reason}" for tier, reason in reasons.items() if reason]
    if notes and choice != "auto":
        raise SelfplayError(f"--tiers {choice}: {notes[0]}")
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
    ) -> None:
        """Nothing is loaded yet.

        Args:
            tiers: Whose signals are wanted.
            learned: What the models must be.
            optional: A tier that cannot be measured is noted and left out, else it is an error.
            reads: Tiers that the rules or weights read; others are not measured.
            scorer: Scores instead of the default one; left open.
            skip_cut: Turns cut at the token limit get no likelihoods, since none of them will be chosen.
        """
        self.notes: list[str] = []
        self._unwanted = [name for tier, names in SIGNALS.items() if tier not in tiers for name in names]
        self._tiers = {tier for tier in tiers if tier in reads}
        self._learned = learned
        self._optional = optional
        self._skip_cut = skip_cut
        self._models: dict[str, dict[str, Any]] = {}
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
            if tier not in self._tiers:
                continue
            try:
                if tier not in self._models:
                    self._models[tier] = self._load(tier)
                table = measure(table, {tier}, skip_cut=self._skip_cut, **self._models[tier])
            except SelfplayError as error:
                if not self._optional:
                    raise SelfplayError(f"no {tier} signals: {error}") from None
                self._tiers.remove(tier)
                self.notes.append(f"without {tier} signals: {error}")
        return table

    def _load(self, tier: str) -> dict[str, Any]:
        reason = obstacle(tier, self._learned)
        if reason:
            raise SelfplayError(reason)
        if tier == "embedding":
            return {"embedder": load_embedder()}
        self._own, template = default_scorer()
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
