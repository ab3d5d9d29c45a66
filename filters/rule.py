"""One rule: a conjunction of threshold tests that gives a label, and its record on turns kept out of learning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.checking import is_number
from filters.errors import RulesError
from filters.features import FEATURES, Features
from filters.labels import Label

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_TESTS = 4
_OPS = (">=", "<=")


@dataclass(frozen=True, slots=True)
class Threshold:
    """One comparison, `feature >= value` or `feature <= value`; never holds where the feature is unknown."""

    feature: str
    op: str
    value: float

    def holds(self, features: Features) -> NDArray[np.bool_]:
        """Boolean array of shape (n,)."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.met(features.values[self.feature]))

    def met(self, value: Any) -> Any:
        """Whether a value of the feature, or each of an array of them, passes; NaN does not."""
        return value >= self.value if self.op == ">=" else value <= self.value

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
class Certified:
    """What a rule proved on conversations that no search had seen.

    Attributes:
        precision: The precision that was asked for.
        n: Turns there on which the rule decided.
        right: How many of them the judge gave the rule's own label.
        bound: Lower one-sided 95 % bound of right / n (Clopper & Pearson 1934, exact).
    """

    precision: float
    n: int
    right: int
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the bound reaches what was asked for."""
        return self.bound >= self.precision

    def __str__(self) -> str:
        if self.holds:
            return f"certified >= {self.precision:.2f} (n={self.n}, at least {self.bound:.2f})"
        return f"not certified (n={self.n})"

    def to_json(self) -> dict[str, float]:
        return {"precision": self.precision, "n": self.n, "right": self.right, "bound": self.bound}

    @classmethod
    def from_json(cls, data: Any, place: str) -> Certified:
        """Raises: RulesError with the place."""
        if not isinstance(data, dict) or not all(_is_count(data.get(key)) for key in ("n", "right")):
            raise RulesError(f"{place} must count n and right")
        precision, bound = data.get("precision"), data.get("bound")
        if not all(isinstance(value, int | float) and 0 <= value <= 1 for value in (precision, bound)):
            raise RulesError(f"{place} must have precision and bound in 0..1")
        return cls(float(precision or 0), data["n"], data["right"], float(bound or 0))


@dataclass(frozen=True, slots=True)
class Rule:
    """All tests hold → `label`.

    Attributes:
        support: Training turns on which this rule decided.
        precision: Held-out figures by source of the turns (`sampled`, `written`); empty for a rule added by hand.
        certified: None where it was not asked for, or the rule was added by hand.
    """

    name: str
    label: Label
    tests: tuple[Threshold, ...]
    enabled: bool = True
    support: int | None = None
    precision: Mapping[str, Precision] = field(default_factory=dict)
    certified: Certified | None = None

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


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion (Wilson 1927); (0, 1) without data."""
    if n == 0:
        return 0.0, 1.0
    z = 1.959964
    share, spread = hits / n, z * z / n
    middle = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def read_rule(entry: Any, place: str) -> Rule:
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
    if len(tests) > MOST_TESTS:
        raise RulesError(f"{place}: {len(tests)} tests; a rule has at most {MOST_TESTS}")
    enabled = entry.get("enabled", True)
    if not isinstance(enabled, bool):
        raise RulesError(f"{place}: `enabled` must be true or false")
    support = entry.get("support")
    if support is not None and not _is_count(support):
        raise RulesError(f"{place}: `support` must be a count")
    certified = entry.get("certified")
    return Rule(
        name,
        label,
        tuple(_tests(tests, place)),
        enabled,
        support,
        dict(_precisions(entry, place)),
        Certified.from_json(certified, f"{place}: certified") if certified is not None else None,
    )


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
        if not is_number(value):
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


def rule_as_json(rule: Rule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "label": rule.label.value,
        "tests": [[test.feature, test.op, test.value] for test in rule.tests],
        "enabled": rule.enabled,
        "support": rule.support,
        "certified": rule.certified.to_json() if rule.certified else None,
        "precision": {
            source: {"fired": p.fired, "right": p.right, "genuine": p.genuine, "low": p.low, "high": p.high}
            for source, p in rule.precision.items()
        },
    }


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
