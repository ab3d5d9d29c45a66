"""Rules that a person can read and edit: ordered conjunctions of threshold tests, each giving one label.

Saved as JSON with a schema version. Whoever edits the file by hand gets one clear line for each mistake.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
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
from filters.labels import LABELS, Label
from filters.rule import Rule, read_rule, rule_as_json
from filters.scores import Scores, score_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA = "selfplay-rules/2"
MOST_RULES = 60


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
        return frozenset(read.union(*(scores.tiers for scores in (self.scores, self.genuine) if scores)))

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
        if self.scores is not None and self.genuine is not None:
            return self.scores.known(features) & self.genuine.known(features)
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

    @property
    def layer(self) -> int | None:
        """The scorer's layer whose states the sets read; None where they read none."""
        scores = (found for rules in self.sets.values() for found in (rules.scores, rules.genuine) if found)
        return next((found.probe.layer for found in scores if found.probe is not None), None)

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
    rules = tuple(read_rule(entry, f"{place}.rules[{index}]") for index, entry in enumerate(data["rules"]))
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
    else:
        read = scores.tiers | genuine.tiers | {FEATURES[feature].tier for feature in boosted.inputs}
        if not read <= set(SETS[name]):
            raise RulesError(f"{place}.scores reads a tier which {name!r} is without")
        if len({found.probe.layer for found in (scores, genuine) if found.probe}) > 1:
            raise RulesError(f"{place}: scores and genuine read different layers")
    return RuleSet(
        name,
        rules,
        scores,
        genuine,
        boosted,
        Calibration.from_json(data["calibration"], f"{place}.calibration") if given else None,
        _mapping(data, "held_out"),
    )


def _mapping(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name, {})
    if not isinstance(value, dict):
        raise RulesError(f"`{name}` must be an object")
    return value


def _as_json(rules: Rules) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "training": dict(rules.training),
        "models": dict(rules.models),
        "sets": {name: _set_as_json(rule_set) for name, rule_set in rules.sets.items()},
    }


def _set_as_json(rule_set: RuleSet) -> dict[str, Any]:
    return {
        "rules": [rule_as_json(rule) for rule in rule_set.rules],
        "held_out": dict(rule_set.held_out),
        "scores": rule_set.scores.to_json() if rule_set.scores else None,
        "genuine": rule_set.genuine.to_json() if rule_set.genuine else None,
        "boosted": rule_set.boosted.to_json() if rule_set.boosted else None,
        "calibration": rule_set.calibration.to_json() if rule_set.calibration else None,
    }
