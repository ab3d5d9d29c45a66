"""Rule files: what is saved comes back, and each mistake of a hand gets one line that says where."""

import copy
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from filters import RulesError, load_rules
from filters.features import FEATURES, Features
from filters.labels import Label
from filters.rules import Rule, RuleSet, Threshold, parse, wilson

SHIPPED: dict[str, Any] = json.loads((files("filters") / "default_rules.json").read_text(encoding="utf-8"))


def test_round_trip(tmp_path: Path) -> None:
    rules = load_rules()
    rules.save(tmp_path / "rules.json")
    assert load_rules(str(tmp_path / "rules.json")) == rules


def test_shipped_rules_are_readable_and_carry_their_record() -> None:
    rules = load_rules()
    assert 10 <= len(rules.rules) <= 60
    assert all(len(rule.tests) <= 4 for rule in rules.rules)
    assert all(set(rule.precision) == {"sampled", "written"} for rule in rules.rules)
    assert len(rules.training["sha256"]) == 64
    assert str(rules.rules[0]).endswith(f"-> {rules.rules[0].label}")


def set_at(data: Any, path: list[Any], value: Any) -> Any:
    data = copy.deepcopy(data)
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["schema"], "selfplay-rules/0", "this version reads 'selfplay-rules/1'"),
        (["rules"], {}, "`rules` must be a list"),
        (["rules", 0], 3, r"rules\[0\] must be an object"),
        (["rules", 0, "name"], " ", r"rules\[0\] has no name"),
        (["rules", 1, "name"], SHIPPED["rules"][0]["name"], "two rules are named"),
        (["rules", 0, "label"], "bad", "label 'bad' is none of malformed"),
        (["rules", 0, "label"], "follow_up", "none may give the label 'follow_up'"),
        (["rules", 0, "tests"], [], "at least one test"),
        (["rules", 0, "tests", 0], ["content", ">="], r"tests\[0\] must be \[feature"),
        (["rules", 0, "tests", 0, 0], "contents", "no feature 'contents'"),
        (["rules", 0, "tests", 0, 1], ">", "operator '>' is neither >= nor <="),
        (["rules", 0, "tests", 0, 2], "4", "'4' is not a number"),
        (["rules", 0, "tests", 0, 2], float("nan"), "nan is not a number"),
        (["rules", 0, "enabled"], "no", "`enabled` must be true or false"),
        (["rules", 0, "support"], -1, "`support` must be a count"),
        (["rules", 0, "precision", "sampled"], {"fired": 1, "right": 2, "genuine": 0}, "more right and genuine"),
        (["calibrations", "text", "weights"], [1.0], r"calibrations.text.weights must be a list of \d+ numbers"),
        (["calibrations", "text", "inputs", 0], "x", "no feature 'x'"),
        (["calibrations", "text", "replicates"], [], "replicates must be a list"),
        (["calibrations", "words"], {}, "no tier set 'words'"),
    ],
)
def test_a_mistake_gets_one_line(path: list[Any], value: Any, message: str) -> None:
    with pytest.raises(RulesError, match=message) as caught:
        parse(set_at(SHIPPED, path, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "{}"])
def test_a_file_that_is_no_rule_set(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(RulesError, match=r"mine\.json: "):
        load_rules(str(tmp_path / "mine.json"))
    with pytest.raises(RulesError, match=r"none\.json: cannot read it"):
        load_rules(str(tmp_path / "none.json"))


def features(**columns: list[float]) -> Features:
    n = len(next(iter(columns.values())))
    values = {name: np.array(columns.get(name, [np.nan] * n), dtype=float) for name in FEATURES}
    return Features(values, np.ones(n, dtype=bool))


def test_the_first_rule_that_fires_decides() -> None:
    short = Rule("short", Label.DEGENERATE, (Threshold("chars", "<=", 5),))
    loop = Rule("loop", Label.MALFORMED, (Threshold("loop", ">=", 3), Threshold("chars", "<=", 100)))
    given = features(chars=[3, 3, 50, 500], loop=[1, 4, 4, 4])
    assert RuleSet((short, loop)).decide(given).tolist() == [0, 0, 1, -1]
    assert RuleSet((loop, short)).decide(given).tolist() == [1, 0, 0, -1]


def test_a_rule_switched_off_does_not_fire() -> None:
    rule = Rule("short", Label.DEGENERATE, (Threshold("chars", "<=", 5),), enabled=False)
    assert RuleSet((rule,)).decide(features(chars=[3])).tolist() == [-1]


@pytest.mark.parametrize("op", [">=", "<="])
def test_an_unknown_value_passes_no_test(op: str) -> None:
    assert not Threshold("cos_query", op, 0.0).holds(features(cos_query=[float("nan")])).any()


def test_wilson_interval() -> None:
    low, high = wilson(81, 263)  # Newcombe 1998, table I: 0.2553 to 0.3662.
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 0) == (0.0, 1.0)
