"""Rule files: what is saved comes back, and each mistake of a hand gets one line that says where."""

import copy
import json
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from filters import RulesError, load_rules
from filters.features import FEATURES, Features
from filters.labelling import decide
from filters.labels import LABELS, Label
from filters.learning.learn import READS
from filters.rule import Certified, Precision, Rule, Threshold, wilson
from filters.rules import RuleSet, parse

SHIPPED: dict[str, Any] = json.loads((files("filters") / "default_rules.json").read_text(encoding="utf-8"))
ALL_LABELS = [0.0] * len(LABELS)
SMALL: dict[str, Any] = {
    "schema": "selfplay-rules/2",
    "training": {"sha256": "0" * 64},
    "models": {"scorer": {"model": "s"}},
    "sets": {
        "text": {
            "rules": [
                {
                    "name": "short",
                    "label": "degenerate",
                    "tests": [["chars", "<=", 5]],
                    "enabled": False,
                    "support": 7,
                    "precision": {"sampled": {"fired": 4, "right": 3, "genuine": 1}},
                    "certified": {"precision": 0.9, "n": 30, "right": 30, "bound": 0.905},
                },
                {
                    "name": "off",
                    "label": "off_topic",
                    "tests": [["score_off_topic", ">=", 0.5], ["p_genuine", "<=", 0.2]],
                },
            ],
            "held_out": {"sampled": {"turns": 5}},
            "scores": {
                "inputs": ["chars"],
                "low": [0],
                "high": [9],
                "center": [4, 1, 0.5],
                "weights": {label: [0.1, 0, place] for place, label in enumerate(LABELS)},
                "intercepts": ALL_LABELS,
            },
            "genuine": {
                "inputs": ["lines"],
                "low": [0],
                "high": [9],
                "center": [4, 1, 0.5],
                "weights": {label: [0.1, 0, place] for place, label in enumerate(LABELS)},
                "intercepts": ALL_LABELS,
            },
            "boosted": {
                "inputs": ["chars", "lines"],
                "trees": [[[0, 4.5, 1, 2], [-0.25], [1, 2.5, 3, 4], [0.5], [0.75]]],
            },
            "calibration": {"weights": [0.5, 0.5, -1], "replicates": [[0.5, 0.5, -1], [0.4, 0.6, -1]], "figures": {}},
        },
        "full": {"rules": [{"name": "far", "label": "off_topic", "tests": [["cos_answer", "<=", 0.1]]}]},
    },
}
"""Both sets, small enough to have every part of a file in sight."""
FIRST = ("sets", "text", "rules", 0)
TREE = ("sets", "text", "boosted", "trees", 0)


def test_round_trip_of_what_is_shipped(tmp_path: Path) -> None:
    rules = load_rules()
    rules.save(tmp_path / "rules.json")
    assert load_rules(str(tmp_path / "rules.json")) == rules


def test_round_trip_of_every_part(tmp_path: Path) -> None:
    rules = parse(SMALL)
    rules.save(tmp_path / "rules.json")
    again = load_rules(tmp_path / "rules.json")
    assert again == rules
    text = again.sets["text"]
    assert (text.rules[0].enabled, text.rules[1].enabled) == (False, True)
    assert text.rules[0].certified == Certified(0.9, 30, 30, 0.905)
    assert text.rules[0].precision == {"sampled": Precision.count(4, 3, 1)}
    assert (text.rules[0].support, text.rules[1].support) == (7, None)
    assert text.calibration is not None
    assert len(text.calibration.replicates) == 2
    assert text.held_out == {"sampled": {"turns": 5}}
    assert again.sets["full"].scores is None
    assert (again.training, again.models) == ({"sha256": "0" * 64}, {"scorer": {"model": "s"}})
    assert '["chars", "<=", 5.0]' in (tmp_path / "rules.json").read_text(), "a test looks like one, on one line"


def test_shipped_rules_are_readable_and_carry_their_record() -> None:
    rules = load_rules()
    assert list(rules.sets) == ["text", "full"]
    for name, rule_set in rules.sets.items():
        assert 10 <= len(rule_set.rules) <= 60
        assert all(1 <= len(rule.tests) <= 4 for rule in rule_set.rules)
        assert all(set(rule.precision) == {"sampled", "written"} for rule in rule_set.rules)
        assert rule_set.tiers == frozenset(READS[name][0])
        assert set(rule_set.held_out) == {"sampled", "written"}
        assert str(rule_set.rules[0]).endswith(f"-> {rule_set.rules[0].label}")
    assert len(rules.training["sha256"]) == 64
    assert set(rules.models) == {"scorer", "embedder"}


def test_one_set_alone() -> None:
    assert list(load_rules().only("text").sets) == ["text"]
    with pytest.raises(RulesError, match="no rule set 'all'; there is text, full"):
        load_rules().only("all")


def set_at(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    data = copy.deepcopy(data)
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return data


RULE = {"name": "x", "label": "generic", "tests": [["new", ">=", 1]]}
MISTAKES: list[tuple[tuple[Any, ...], Any, str]] = [
    (("schema",), "selfplay-rules/1", "schema is 'selfplay-rules/1', this version reads 'selfplay-rules/2'"),
    (("sets",), {}, "`sets` is empty; give at least `text`"),
    (("sets",), [], "`sets` must be an object"),
    (("sets", "words"), {"rules": []}, "sets has 'words'; there are text, full"),
    (("sets", "text"), [], "sets.text.rules must be a list"),
    (("sets", "text", "rules"), {}, "sets.text.rules must be a list"),
    (("training",), [], "`training` must be an object"),
    (("sets", "text", "held_out"), [], "`held_out` must be an object"),
    # A rule.
    (FIRST, 3, "sets.text.rules[0] must be an object"),
    ((*FIRST, "name"), " ", "sets.text.rules[0] has no name"),
    ((*FIRST, "name"), "off", "sets.text: two rules are named 'off'"),
    ((*FIRST, "label"), "bad", "sets.text.rules[0] (short): label 'bad' is none of malformed"),
    ((*FIRST, "label"), "follow_up", "none may give the label 'follow_up'"),
    ((*FIRST, "tests"), [], "sets.text.rules[0] (short): `tests` must be a list with at least one test"),
    (
        (*FIRST, "tests"),
        [["chars", ">=", n] for n in range(5)],
        "sets.text.rules[0] (short): 5 tests; a rule has at most 4",
    ),
    ((*FIRST, "tests", 0), ["content", ">="], "(short): tests[0] must be [feature"),
    ((*FIRST, "tests", 0, 0), "contents", "tests[0]: no feature 'contents'"),
    ((*FIRST, "tests", 0, 0), ["chars"], "tests[0]: no feature ['chars']"),
    ((*FIRST, "tests", 0, 1), ">", "tests[0]: operator '>' is neither >= nor <="),
    ((*FIRST, "tests", 0, 2), "4", "tests[0]: '4' is not a number"),
    ((*FIRST, "tests", 0, 2), True, "tests[0]: True is not a number"),
    ((*FIRST, "tests", 0, 2), float("nan"), "tests[0]: nan is not a number"),
    ((*FIRST, "tests", 0, 2), 10**400, "is not a number"),
    ((*FIRST, "enabled"), "no", "`enabled` must be true or false"),
    ((*FIRST, "support"), -1, "`support` must be a count"),
    ((*FIRST, "precision"), [], "`precision` must be an object"),
    ((*FIRST, "precision", "sampled"), {"fired": 1}, "precision.sampled must count fired, right and genuine"),
    ((*FIRST, "precision", "sampled"), {"fired": 1, "right": 1, "genuine": 1}, "more right and genuine than fired"),
    ((*FIRST, "certified"), 3, "(short): certified must count n and right"),
    ((*FIRST, "certified", "n"), "30", "(short): certified must count n and right"),
    ((*FIRST, "certified", "precision"), 90, "(short): certified must have precision and bound in 0..1"),
    ((*FIRST, "certified", "bound"), None, "(short): certified must have precision and bound in 0..1"),
    # A set.
    (("sets", "text", "rules"), [RULE | {"name": str(n)} for n in range(61)], "sets.text has 61 rules"),
    ((*FIRST, "tests", 0, 0), "cos_query", "sets.text: rule 'short' reads the embedding tier, which 'text' is without"),
    (
        ("sets", "full", "rules", 0, "tests", 0, 0),
        "score_generic",
        "sets.full: rule 'far' tests a score, but the set has no `scores`",
    ),
    (
        ("sets", "full", "rules", 0, "tests", 0, 0),
        "p_genuine",
        "sets.full: rule 'far' tests a score, but the set has no `scores`",
    ),
    *(
        (("sets", "text", part), None, "scores, genuine, boosted, calibration come together or not at all")
        for part in ("scores", "genuine", "boosted", "calibration")
    ),
    *(
        (("sets", "text", part, "inputs"), ["cos_query"], "sets.text.scores reads a tier")
        for part in ("scores", "genuine")
    ),
    (("sets", "text", "boosted", "inputs", 1), "role_ratio", "sets.text.scores reads a tier which 'text' is without"),
    # Its learned parts.
    (("sets", "text", "scores"), 3, "sets.text.scores must be an object"),
    *(
        mistake
        for part in ("scores", "genuine")
        for mistake in (
            (("sets", "text", part, "inputs"), [], f"sets.text.{part}.inputs must list features"),
            (("sets", "text", part, "inputs"), ["lengths"], f"sets.text.{part}.inputs: no feature 'lengths'"),
            (("sets", "text", part, "inputs"), ["p_genuine"], f"sets.text.{part}.inputs: no feature 'p_genuine'"),
            (("sets", "text", part, "low"), [1, 2], f"sets.text.{part}.low must be a list of 1 numbers"),
            (("sets", "text", part, "center"), [1], f"sets.text.{part}.center must be a list of 3 numbers"),
            (("sets", "text", part, "high", 0), float("inf"), f"sets.text.{part}.high holds something that is not"),
            (("sets", "text", part, "weights"), {}, f"sets.text.{part}.weights must have one list for each label"),
            (
                ("sets", "text", part, "weights", "generic"),
                [1],
                f"sets.text.{part}.weights.generic must be a list of 3",
            ),
            (("sets", "text", part, "intercepts"), [1], f"sets.text.{part}.intercepts must be a list of 9 numbers"),
        )
    ),
    (("sets", "text", "boosted"), 3, "sets.text.boosted.inputs must list features"),
    (("sets", "text", "boosted"), {"inputs": [], "trees": []}, "sets.text.boosted.inputs must list features"),
    (("sets", "text", "boosted", "inputs"), {}, "sets.text.boosted.inputs must list features"),
    (("sets", "text", "boosted", "inputs", 0), "lengths", "sets.text.boosted.inputs: no feature 'lengths'"),
    (("sets", "text", "boosted", "inputs", 0), "score_generic", "sets.text.boosted.inputs: no feature 'score_generic'"),
    (("sets", "text", "boosted", "trees"), {}, "sets.text.boosted.trees must be a list"),
    (TREE, [], "sets.text.boosted.trees[0] must be a list of nodes"),
    ((*TREE, 1), ["x"], "sets.text.boosted.trees[0][1] holds something that is not a number"),
    ((*TREE, 0), [0, 4.5, 1], "sets.text.boosted.trees[0][0] must be a list of 4 numbers"),
    ((*TREE, 2), [1, 2.5, 0, 4], "sets.text.boosted.trees[0][2] names a feature or a node that is not there"),
    ((*TREE, 2), [1, 2.5, 3, 2], "sets.text.boosted.trees[0][2] names a feature or a node that is not there"),
    ((*TREE, 2), [1, 2.5, 3, 5], "sets.text.boosted.trees[0][2] names a feature or a node that is not there"),
    ((*TREE, 0), [2, 4.5, 1, 2], "sets.text.boosted.trees[0][0] names a feature or a node that is not there"),
    ((*TREE, 0), [0.5, 4.5, 1, 2], "sets.text.boosted.trees[0][0] names a feature or a node that is not there"),
    ((*TREE, 2), [1, 2.5, 2.5, 4], "sets.text.boosted.trees[0][2] names a feature or a node that is not there"),
    ((*TREE, 0), [-1, 4.5, 1, 2], "sets.text.boosted.trees[0][0] names a feature or a node that is not there"),
    (("sets", "text", "calibration"), 3, "sets.text.calibration must be an object"),
    (("sets", "text", "calibration", "weights"), [1, 2], "sets.text.calibration.weights must be a list of 3 numbers"),
    (("sets", "text", "calibration", "replicates"), [], "sets.text.calibration.replicates must be a list of weights"),
    (("sets", "text", "calibration", "replicates", 1), [1, 2, "3"], "sets.text.calibration.replicates[1] holds"),
]


@pytest.mark.parametrize(("path", "value", "message"), MISTAKES, ids=[f"{m[0][-1]}: {m[2][:60]}" for m in MISTAKES])
def test_a_mistake_gets_one_line(path: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse(set_at(SMALL, path, value))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def paths(data: Any, *above: Any) -> list[tuple[Any, ...]]:
    """Every place in decoded JSON."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [here for key, value in items for here in ((*above, key), *paths(value, *above, key))]


JUNK: list[Any] = [
    None, True, -1, 0, 1, 0.5, 1.5, 2.5, 10**400, 1e308, float("nan"), float("inf"), "", "x", "chars", "cos_query",
    [], {}, [None], [[]], [1, 2, 3], [1.5], [0, 0.5, 1.5, 1.5], {"a": 1}, {"inputs": [], "trees": []},
]  # fmt: skip


def test_whatever_stands_anywhere_is_refused_in_one_line_or_works() -> None:
    rng = np.random.default_rng(0)
    names = ("chars", "lines", "control", "cos_answer", "cos_query")
    turns = features(**{name: list(rng.normal(2, 3, 4)) for name in names})
    refused = []
    for path, value in product(paths(SMALL), JUNK):
        try:
            rules = parse(set_at(SMALL, path, value))
        except RulesError as error:
            refused.append(str(error))
        else:
            decide(rules, turns)
    assert len(refused) > 1000
    assert not any("\n" in told for told in refused)


def test_the_same_in_what_is_shipped_is_found_in_its_place() -> None:
    last = len(SHIPPED["sets"]["full"]["rules"]) - 1
    with pytest.raises(RulesError, match=rf"sets\.full\.rules\[{last}\] has no name"):
        parse(set_at(SHIPPED, ("sets", "full", "rules", last, "name"), None))
    with pytest.raises(RulesError, match=r"sets\.full: rule .* tests a score, but the set has no `scores`"):
        parse({**SHIPPED, "sets": {"full": {"rules": SHIPPED["sets"]["full"]["rules"]}}})


def test_sixty_rules_and_four_tests_are_allowed() -> None:
    tests = [["chars", ">=", n] for n in range(4)]
    assert len(parse(set_at(SMALL, (*FIRST, "tests"), tests)).sets["text"].rules[0].tests) == 4
    many = [RULE | {"name": str(n)} for n in range(60)]
    assert len(parse(set_at(SMALL, ("sets", "text", "rules"), many)).sets["text"].rules) == 60


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "{}"])
def test_a_file_that_is_no_rule_set(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(RulesError, match=r"mine\.json: "):
        load_rules(str(tmp_path / "mine.json"))
    with pytest.raises(RulesError, match=r"none\.json: cannot read it"):
        load_rules(str(tmp_path / "none.json"))


def features(**columns: list[float]) -> Features:
    n = len(next(iter(columns.values())))
    values = {
        name: np.array(columns.get(name, [np.nan] * n), dtype=float)
        for name, feature in FEATURES.items()
        if feature.tier != "score" or name in columns
    }
    return Features(values, np.ones(n, dtype=bool))


def test_the_first_rule_that_fires_decides() -> None:
    short = Rule("short", Label.DEGENERATE, (Threshold("chars", "<=", 5),))
    loop = Rule("loop", Label.MALFORMED, (Threshold("loop", ">=", 3), Threshold("chars", "<=", 100)))
    turns = features(chars=[3, 3, 50, 500], loop=[1, 4, 4, 4])
    assert RuleSet("text", (short, loop)).decide(turns).tolist() == [0, 0, 1, -1]
    assert RuleSet("text", (loop, short)).decide(turns).tolist() == [1, 0, 0, -1]


def test_a_rule_switched_off_does_not_fire() -> None:
    rule = Rule("short", Label.DEGENERATE, (Threshold("chars", "<=", 5),), enabled=False)
    assert RuleSet("text", (rule,)).decide(features(chars=[3])).tolist() == [-1]


@pytest.mark.parametrize("op", [">=", "<="])
def test_an_unknown_value_passes_no_test(op: str) -> None:
    assert not Threshold("cos_query", op, 0.0).holds(features(cos_query=[float("nan")])).any()


def test_rules_without_scores_give_labels_and_no_probability() -> None:
    rule_set = RuleSet("text", (Rule("short", Label.DEGENERATE, (Threshold("chars", "<=", 5),)),))
    prepared = rule_set.prepare(features(chars=[3, 50], control=[0, 0]))
    decided = rule_set.decide(prepared)
    assert decided.tolist() == [0, -1]
    assert np.isnan(rule_set.probability(prepared, decided)).all()


def test_p_genuine_is_bounded_by_the_misses_of_the_rule_that_fired_and_0_with_a_control_token() -> None:
    text = parse(set_at(SMALL, (*FIRST, "enabled"), True)).sets["text"]
    prepared = text.prepare(features(chars=[3, 3, 9], lines=[1, 1, 3], control=[0, 1, 0]))
    free = prepared.values["p_genuine"]
    caps = text.caps(prepared, text.decide(prepared))
    assert caps.tolist() == [pytest.approx(wilson(1, 4)[1], abs=1e-4), 0, 1]
    given = text.probability(prepared, text.decide(prepared))
    assert given.tolist() == np.minimum(free, caps).tolist()
    assert 0 < free[2] < 1


def test_rows_go_to_the_largest_set_that_knows_them() -> None:
    rules = parse(SMALL)
    rows = rules.assign(features(cos_answer=[0.5, float("nan"), 0.0], chars=[1, 2, 3]))
    assert {name: where.tolist() for name, where in rows.items()} == {"full": [0, 2], "text": [1]}
    alone = rules.only("full").assign(features(cos_answer=[0.5, float("nan")]))
    assert {name: where.tolist() for name, where in alone.items()} == {"full": [0, 1]}


def test_wilson_interval() -> None:
    low, high = wilson(81, 263)  # Newcombe 1998, table I: 0.2553 to 0.3662.
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 0) == (0.0, 1.0)
