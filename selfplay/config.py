"""What decides the outcome of a run, as plain data: saved in `run.json` and compared on resume."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from selfplay.core import Draw, Sampling

PERSONA = "{persona}"
"""Stands in `SampleConfig.system` for what a row says of its user."""


@dataclass(frozen=True, slots=True)
class SampleConfig:
    """What is sampled, from what, and how.

    Attributes:
        model_hash: Fingerprint of a model in a folder, commit of one from Hugging Face; None where a server has it.
        temperatures: The number of samples of each temperature, in each round.
        until_survivors: Go on drawing at a site until so many of its candidates may be chosen; None for one round.
        max_n: Most candidates of a site over all rounds and temperatures.
        persona: Column of the input whose text takes the place of `PERSONA` in `system`.
    """

    source: str
    source_hash: str
    model: str
    revision: str | None = None
    model_hash: str | None = None
    tokenizer: str | None = None
    template_hash: str = ""
    template_date: str | None = None
    engine: str = "transformers"
    primed: bool = False
    turns: str = "last"
    limit: int | None = None
    system: str = "keep"
    temperatures: Mapping[float, int] = field(default_factory=lambda: {1.0: 8})
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    until_survivors: int | None = None
    max_n: int | None = None
    persona: str | None = None

    @property
    def n(self) -> int:
        """Candidates per site over all temperatures, in the first round."""
        return sum(self.temperatures.values())

    def as_json(self) -> dict[str, Any]:
        """JSON types only; temperatures become strings as JSON keys must be."""
        return asdict(self) | {"temperatures": {f"{t:g}": n for t, n in self.temperatures.items()}}


@dataclass(frozen=True, slots=True)
class SelectConfig:
    """How candidates are measured, filtered, ranked and chosen.

    Attributes:
        scorer_model: What was named to score turns; None is the shipped one.
        select: Turns chosen per site, at most.
        diversity: What redundancy weighs against merit, 0..1.
    """

    rules: str
    rules_hash: str
    weights: str
    weights_hash: str
    tiers: tuple[str, ...]
    scorer_model: str | None = None
    cross_encoder: str | None = None
    min_groundedness: float = 0.0
    allow_truncated: bool = False
    select: int = 1
    diversity: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """JSON types only. Newer settings are left out at their defaults, as in runs from before them."""
        plain = asdict(self) | {"tiers": list(self.tiers)}
        for name, default in (("select", 1), ("diversity", 0.0), ("scorer_model", None), ("cross_encoder", None)):
            if plain[name] == default:
                del plain[name]
        return plain


def draws(config: SampleConfig, site_id: str, number: int = 0) -> tuple[Draw, ...]:
    """The candidates to draw at a site in a round, 0 being the first; none where `max_n` leaves no room.

    Each seed depends only on the run's seed and the turn's key, so the rounds go on where one long round would. The
    temperature 0 is left out of later rounds, since it draws the same text again. A round that `max_n` cuts short is
    cut by sample number, so that the temperatures share what is left.
    """
    keys = [(t, number * n + i) for t, n in config.temperatures.items() if t > 0 or not number for i in range(n)]
    if number:
        again = sum(n for t, n in config.temperatures.items() if t > 0)
        room = max(0, (config.max_n or 0) - config.n - (number - 1) * again)
        kept = set(sorted(keys, key=lambda key: key[1] - number * config.temperatures[key[0]])[:room])
        keys = [key for key in keys if key in kept]
    return tuple(Draw(t, sample, turn_seed(config.seed, site_id, t, sample)) for t, sample in keys)


def round_of(config: SampleConfig, temperature: float, sample: int) -> int:
    """The round in which `draws` has this candidate."""
    return sample // config.temperatures[temperature] if temperature > 0 else 0


def turn_seed(run_seed: int, site_id: str, temperature: float, sample: int) -> int:
    """A 63-bit seed from the run's seed and the turn's key."""
    key = f"{run_seed}\0{site_id}\0{temperature:g}\0{sample}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """One line per setting whose value differs, nested ones as `a.b`; None, or what is not there, is the default."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, now, name = old.get(key), new.get(key), f"{path}{key}"
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            lines += differences(before, now, f"{name}.")
        elif before != now:
            told = ("default" if value is None else repr(value) for value in (before, now))
            lines.append(f"{name}: {' -> '.join(told)}")
    return lines
