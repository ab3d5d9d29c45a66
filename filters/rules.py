"""Rules that a person can read and edit: ordered conjunctions of threshold tests, each giving one label.

Saved as JSON with a schema version. Whoever edits the file by hand gets one clear line for each mistake.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.calibration import Calibration
from filters.errors import RulesError
from filters.features import FEATURES, TIERS, Features
from filters.labels import Label

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA = "selfplay-rules/1"
_OPS = (">=", "<=")


@dataclass(frozen=True, slots=True)
class Threshold:
    """One comparison, `feature >= value` or `feature <= value`; never holds where the feature is unknown."""

    feature: str
    op: str
    value: float

    def holds(self, features: Features) -> NDArray[np.bool_]:
        """Boolean array of shape (n,)."""
        column = features.values[self.feature]
        with np.errstate(invalid="ignore"):
            return column >= self.value if self.op == ">=" else column <= self.value

    def __str__(self) -> str:
        return f"{self.feature} {self.op} {self.value:g}"


@dataclass(frozen=True, slots=True)
class Precision:
    """How often a rule was right on conversations it was not learned from.

    Attributes:
        fired: Held-out turns on which this rule decided.
        right: How many of them the judge gave the rule's own label.
        genuine: How many of them the judge called genuine: its misses.
        low, high: 95 % Wilson interval of right / fired.
        genuine_high: Upper end of the 95 % Wilson interval of genuine / fired.
    """

    fired: int
    right: int
    genuine: int
    low: float
    high: float
    genuine_high: float

    @classmethod
    def count(cls, fired: int, right: int, genuine: int) -> Precision:
        low, high = wilson(right, fired)
        return cls(fired, right, genuine, round(low, 4), round(high, 4), round(wilson(genuine, fired)[1], 4))

    def __str__(self) -> str:
        if not self.fired:
            return "never fired on held-out turns"
        return f"{self.right}/{self.fired} = {self.right / self.fired:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, slots=True)
class Rule:
    """All tests hold → `label`.

    Attributes:
        support: Training turns on which this rule decided.
        precision: Held-out figures by source of the turns (`sampled`, `written`); empty for a rule added by hand.
    """

    name: str
    label: Label
    tests: tuple[Threshold, ...]
    enabled: bool = True
    support: int | None = None
    precision: Mapping[str, Precision] = field(default_factory=dict)

    def fires(self, features: Features) -> NDArray[np.bool_]:
        """Boolean array of shape (n,)."""
        fires = np.ones(len(features), dtype=np.bool_)
        for test in self.tests:
            fires &= test.holds(features)
        return fires

    @property
    def tiers(self) -> frozenset[str]:
        """Tiers whose features the rule reads."""
        return frozenset(FEATURES[test.feature].tier for test in self.tests)

    def __str__(self) -> str:
        return f"{self.name}: {' and '.join(map(str, self.tests))} -> {self.label}"


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Ordered rules (the first that fires decides) and the calibrations of p_genuine.

    Attributes:
        calibrations: By name of the tier set (`features.TIERS`).
        training: What it was learned from: hash and number of turns, sources, and the cross-validated figures.
        models: `scorer` and `embedder` that measured the signals, each with id and whatever pins it.
    """

    rules: tuple[Rule, ...]
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tiers(self) -> frozenset[str]:
        """Tiers that any enabled rule or calibration reads."""
        read = {tier for rule in self.rules if rule.enabled for tier in rule.tiers}
        return frozenset(read.union(*(TIERS[name] for name in self.calibrations)))

    def decide(self, features: Features) -> NDArray[np.intp]:
        """Index of the first rule that fires for each row, -1 where none does; shape (n,)."""
        decided = np.full(len(features), -1, dtype=np.intp)
        for index, rule in enumerate(self.rules):
            if rule.enabled:
                decided[(decided < 0) & rule.fires(features)] = index
        return decided

    def save(self, path: str | Path) -> None:
        """Writes the JSON that `load` reads."""
        Path(path).write_text(json.dumps(_as_json(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path: str | Path | None = None) -> RuleSet:
    """Reads a rule set; without a path the one that is shipped.

    Raises:
        RulesError: The file is missing, not JSON, of another schema, or a rule in it is not valid.
    """
    source = files("filters") / "default_rules.json" if path is None else Path(path)
    name = "the shipped rules" if path is None else str(path)
    try:
        data = json.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise RulesError(f"{name}: cannot read it: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise RulesError(f"{name}: not JSON: {error}") from None
    try:
        return parse(data)
    except RulesError as error:
        raise RulesError(f"{name}: {error}") from None


def parse(data: Any) -> RuleSet:
    """A rule set from decoded JSON.

    Raises:
        RulesError: With the place and the reason.
    """
    if not isinstance(data, dict):
        raise RulesError("must be an object with `schema` and `rules`")
    if data.get("schema") != SCHEMA:
        raise RulesError(f"schema is {data.get('schema')!r}, this version reads {SCHEMA!r}; train the rules again")
    if not isinstance(data.get("rules"), list):
        raise RulesError("`rules` must be a list")
    rules = tuple(_rule(entry, f"rules[{index}]") for index, entry in enumerate(data["rules"]))
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise RulesError(f"two rules are named {name!r}; give each its own name")
    calibrations = _mapping(data, "calibrations")
    for name in calibrations:
        if name not in TIERS:
            raise RulesError(f"calibrations has no tier set {name!r}; there are {', '.join(TIERS)}")
    return RuleSet(
        rules,
        {name: Calibration.from_json(entry, f"calibrations.{name}") for name, entry in calibrations.items()},
        _mapping(data, "training"),
        _mapping(data, "models"),
    )


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion (Wilson 1927); (0, 1) without data."""
    if n == 0:
        return 0.0, 1.0
    z = 1.959964
    share, spread = hits / n, z * z / n
    middle = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def _mapping(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name, {})
    if not isinstance(value, dict):
        raise RulesError(f"`{name}` must be an object")
    return value


def _rule(entry: Any, place: str) -> Rule:
    if not isinstance(entry, dict):
        raise RulesError(f"{place} must be an object")
    name = entry.get("name")
    if not isinstance(name, str) or not name.strip():
        raise RulesError(f"{place} has no name")
    place = f"{place} ({name})"
    try:
        label = Label(str(entry.get("label")))
    except ValueError:
        raise RulesError(f"{place}: label {entry.get('label')!r} is none of {', '.join(Label)}") from None
    if label.genuine:
        raise RulesError(f"{place}: rules say what is wrong; none may give the label {label.value!r}")
    tests = entry.get("tests")
    if not isinstance(tests, list) or not tests:
        raise RulesError(f"{place}: `tests` must be a list with at least one test")
    enabled = entry.get("enabled", True)
    if not isinstance(enabled, bool):
        raise RulesError(f"{place}: `enabled` must be true or false")
    support = entry.get("support")
    if support is not None and not _is_count(support):
        raise RulesError(f"{place}: `support` must be a count")
    return Rule(name, label, tuple(_tests(tests, place)), enabled, support, dict(_precisions(entry, place)))


def _tests(entries: list[Any], place: str) -> Iterator[Threshold]:
    for index, entry in enumerate(entries):
        where = f"{place}: tests[{index}]"
        if not isinstance(entry, list) or len(entry) != 3:
            raise RulesError(f'{where} must be [feature, ">=" or "<=", number]')
        feature, op, value = entry
        if not isinstance(feature, str) or feature not in FEATURES:
            raise RulesError(f"{where}: no feature {feature!r}")
        if op not in _OPS:
            raise RulesError(f"{where}: operator {op!r} is neither >= nor <=")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise RulesError(f"{where}: {value!r} is not a number")
        yield Threshold(feature, op, float(value))


def _precisions(entry: dict[str, Any], place: str) -> Iterator[tuple[str, Precision]]:
    figures = entry.get("precision", {})
    if not isinstance(figures, dict):
        raise RulesError(f"{place}: `precision` must be an object")
    for source, counts in figures.items():
        if not isinstance(counts, dict) or not all(_is_count(counts.get(key)) for key in ("fired", "right", "genuine")):
            raise RulesError(f"{place}: precision.{source} must count fired, right and genuine")
        fired, right, genuine = (counts[key] for key in ("fired", "right", "genuine"))
        if right + genuine > fired:
            raise RulesError(f"{place}: precision.{source} counts more right and genuine than fired")
        yield source, Precision.count(fired, right, genuine)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _as_json(rules: RuleSet) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "training": dict(rules.training),
        "models": dict(rules.models),
        "rules": [
            {
                "name": rule.name,
                "label": rule.label.value,
                "tests": [[test.feature, test.op, test.value] for test in rule.tests],
                "enabled": rule.enabled,
                "support": rule.support,
                "precision": {
                    source: {"fired": p.fired, "right": p.right, "genuine": p.genuine, "low": p.low, "high": p.high}
                    for source, p in rule.precision.items()
                },
            }
            for rule in rules.rules
        ],
        "calibrations": {name: calibration.to_json() for name, calibration in rules.calibrations.items()},
    }
