"""Rules that a person can read and edit: ordered conjunctions of threshold tests, each giving one label.

Saved as JSON with a schema version. Whoever edits the file by hand gets one clear line for each mistake.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.boosted import Boosted
from filters.calibration import Calibration, log_odds
from filters.errors import RulesError
from filters.features import FEATURES, SETS, Features
from filters.labels import Label
from filters.scores import LABELS, Scores, is_number, score_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA = "selfplay-rules/2"
MOST_RULES, MOST_TESTS = 60, 4
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


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Ordered rules (the first that fires decides), the learned scores they may test, and p_genuine.

    Attributes:
        name: `text` or `full` (`features.SETS`).
        scores: Tell the labels apart; None where no rule tests a score.
        genuine: The like, learned foremost from sampled turns; with `boosted` it makes p_genuine.
        boosted: Trees learned from sampled turns alone.
        calibration: Weighs the two. None without scores.
        held_out: Cross-validated figures of the whole set: labels, genuine, confusion.
    """

    name: str
    rules: tuple[Rule, ...]
    scores: Scores | None = None
    genuine: Scores | None = None
    boosted: Boosted | None = None
    calibration: Calibration | None = None
    held_out: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tiers(self) -> frozenset[str]:
        """Tiers that any enabled rule or the scores read."""
        read = {tier for rule in self.rules if rule.enabled for tier in rule.tiers} - {"score"}
        return frozenset(read.union(FEATURES[name].tier for name in (self.scores.inputs if self.scores else ())))

    def prepare(self, features: Features) -> Features:
        """The features with the columns of `features.SCORES`; NaN without scores."""
        if self.scores is None or self.calibration is None:
            unknown = np.full(len(features), np.nan)
            return features.plus({**{score_name(label): unknown for label in LABELS}, "p_genuine": unknown})
        scores = self.scores.probabilities(features)
        columns = {score_name(label): scores[:, column] for column, label in enumerate(LABELS)}
        return features.plus({**columns, "p_genuine": self.calibration.probability(self.odds(features))})

    def odds(self, features: Features) -> NDArray[np.float64]:
        """Log-odds of a follow-up by the linear score and by the trees, shape (n, 2). The set must have scores."""
        assert self.genuine is not None and self.boosted is not None  # noqa: S101, PT018
        linear = self.genuine.probabilities(features)[:, LABELS.index(Label.FOLLOW_UP.value)]
        return np.column_stack([log_odds(linear), self.boosted.log_odds(features)])

    def knows(self, features: Features) -> NDArray[np.bool_]:
        """Which rows have what the set needs; shape (n,). `text` knows all."""
        if self.scores is not None:
            return self.scores.known(features)
        signals = {test.feature for rule in self.rules for test in rule.tests if FEATURES[test.feature].tier != "text"}
        known = np.ones(len(features), dtype=np.bool_)
        for name in signals & features.values.keys():
            known &= np.isfinite(features.values[name])
        return known

    def decide(self, prepared: Features) -> NDArray[np.intp]:
        """Index of the first rule that fires for each row, -1 where none does; shape (n,).

        Args:
            prepared: What `prepare` gave.
        """
        decided = np.full(len(prepared), -1, dtype=np.intp)
        for index, rule in enumerate(self.rules):
            if rule.enabled:
                decided[(decided < 0) & rule.fires(prepared)] = index
        return decided

    def probability(self, prepared: Features, decided: NDArray[np.intp]) -> NDArray[np.float64]:
        """p_genuine, bounded by `caps`; shape (n,)."""
        return np.asarray(np.minimum(prepared.values["p_genuine"], self.caps(prepared, decided)), dtype=np.float64)

    def caps(self, prepared: Features, decided: NDArray[np.intp]) -> NDArray[np.float64]:
        """Upper bound of p_genuine; shape (n,).

        Where a rule fired, the upper end of the miss rate it had on held-out turns. With a control token 0: the rubric
        calls such a turn malformed whatever else it says, and so a token can never make one look better.
        """
        bounds = [rule.precision["sampled"].genuine_high if "sampled" in rule.precision else 1.0 for rule in self.rules]
        by_rule = np.array([*bounds, 1.0])[decided]  # The index -1 of "no rule" finds the 1 at the end.
        return np.asarray(np.where(prepared.values["control"] >= 1, 0.0, by_rule), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a rules file holds: the sets, and what they were learned from.

    Attributes:
        sets: By name; `full` decides rows that have all signals, `text` the others.
        training: Hash and number of turns, sources, folds.
        models: `scorer` and `embedder` that measured the signals, each with id and whatever pins it.
    """

    sets: Mapping[str, RuleSet]
    training: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tiers(self) -> frozenset[str]:
        """Tiers that any of the sets reads."""
        return frozenset().union(*(rules.tiers for rules in self.sets.values()))

    def only(self, name: str) -> Rules:
        """The file without its other sets. Raises: RulesError if it lacks this one."""
        if name not in self.sets:
            raise RulesError(f"there is no rule set {name!r}; there is {', '.join(self.sets)}")
        return Rules({name: self.sets[name]}, self.training, self.models)

    def assign(self, features: Features) -> dict[str, NDArray[np.intp]]:
        """Row numbers by the set that decides them: the largest that knows the row, else the smallest there is."""
        left = np.ones(len(features), dtype=np.bool_)
        rows = {}
        for name in reversed([name for name in SETS if name in self.sets]):
            takes = left & self.sets[name].knows(features)
            rows[name] = takes
            left &= ~takes
        rows[next(name for name in SETS if name in self.sets)] |= left
        return {name: np.flatnonzero(takes) for name, takes in rows.items()}

    def save(self, path: str | Path) -> None:
        """Writes the JSON that `load` reads."""
        text = json.dumps(_as_json(self), indent=1, ensure_ascii=False)
        # A list of plain values on one line: a rule's test should look like one.
        text = re.sub(r"\[\n[^\[\]{}]*\n\s*\]", lambda found: " ".join(found.group().split()), text)
        text = re.sub(r"(?m)^(.*)\[ (.*) \](,?)$", r"\1[\2]\3", text)
        Path(path).write_text(text + "\n", encoding="utf-8")


def load(path: str | Path | None = None) -> Rules:
    """Reads a rules file; without a path the one that is shipped, which is read once.

    Raises:
        RulesError: The file is missing, not JSON, of another schema, or a rule in it is not valid.
    """
    if path is None:
        return _shipped()
    return _read(Path(path), str(path))


@cache
def _shipped() -> Rules:
    return _read(files("filters") / "default_rules.json", "the shipped rules")


def _read(source: Traversable, name: str) -> Rules:
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


def parse(data: Any) -> Rules:
    """Rules from decoded JSON.

    Raises:
        RulesError: With the place and the reason.
    """
    if not isinstance(data, dict):
        raise RulesError("must be an object with `schema` and `sets`")
    if data.get("schema") != SCHEMA:
        raise RulesError(f"schema is {data.get('schema')!r}, this version reads {SCHEMA!r}; train the rules again")
    sets = _mapping(data, "sets")
    if not sets:
        raise RulesError("`sets` is empty; give at least `text`")
    for name in sets:
        if name not in SETS:
            raise RulesError(f"sets has {name!r}; there are {', '.join(SETS)}")
    return Rules(
        {name: _rule_set(name, sets[name], f"sets.{name}") for name in SETS if name in sets},
        _mapping(data, "training"),
        _mapping(data, "models"),
    )


def _rule_set(name: str, data: Any, place: str) -> RuleSet:
    if not isinstance(data, dict) or not isinstance(data.get("rules"), list):
        raise RulesError(f"{place}.rules must be a list")
    rules = tuple(_rule(entry, f"{place}.rules[{index}]") for index, entry in enumerate(data["rules"]))
    if len(rules) > MOST_RULES:
        raise RulesError(f"{place} has {len(rules)} rules; nobody reads more than {MOST_RULES}")
    names = [rule.name for rule in rules]
    for rule in rules:
        if names.count(rule.name) > 1:
            raise RulesError(f"{place}: two rules are named {rule.name!r}; give each its own name")
        foreign = rule.tiers - {*SETS[name], "score"}
        if foreign:
            raise RulesError(f"{place}: rule {rule.name!r} reads the {min(foreign)} tier, which {name!r} is without")
    learned = ("scores", "genuine", "boosted", "calibration")
    given = [part for part in learned if data.get(part) is not None]
    if given and len(given) < len(learned):
        raise RulesError(f"{place} has {', '.join(given)}; {', '.join(learned)} come together or not at all")
    scores, genuine = (
        Scores.from_json(data[part], f"{place}.{part}") if given else None for part in ("scores", "genuine")
    )
    boosted = Boosted.from_json(data["boosted"], f"{place}.boosted") if given else None
    if scores is None or genuine is None or boosted is None:
        for rule in rules:
            if "score" in rule.tiers:
                raise RulesError(f"{place}: rule {rule.name!r} tests a score, but the set has no `scores`")
    elif not {FEATURES[feature].tier for feature in (*scores.inputs, *genuine.inputs, *boosted.inputs)} <= set(
        SETS[name]
    ):
        raise RulesError(f"{place}.scores reads a tier which {name!r} is without")
    return RuleSet(
        name,
        rules,
        scores,
        genuine,
        boosted,
        Calibration.from_json(data["calibration"], f"{place}.calibration") if given else None,
        _mapping(data, "held_out"),
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


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _as_json(rules: Rules) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "training": dict(rules.training),
        "models": dict(rules.models),
        "sets": {name: _set_as_json(rule_set) for name, rule_set in rules.sets.items()},
    }


def _set_as_json(rule_set: RuleSet) -> dict[str, Any]:
    return {
        "rules": [_rule_as_json(rule) for rule in rule_set.rules],
        "held_out": dict(rule_set.held_out),
        "scores": rule_set.scores.to_json() if rule_set.scores else None,
        "genuine": rule_set.genuine.to_json() if rule_set.genuine else None,
        "boosted": rule_set.boosted.to_json() if rule_set.boosted else None,
        "calibration": rule_set.calibration.to_json() if rule_set.calibration else None,
    }


def _rule_as_json(rule: Rule) -> dict[str, Any]:
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
