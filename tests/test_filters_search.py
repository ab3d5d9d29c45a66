"""The search for rules: precision first, on what is left, and never at the cost of genuine turns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from filters.features import FEATURES, Features
from filters.labels import Label
from filters.learning import search
from filters.learning.learn import READS
from filters.learning.search import f1, fit_rules, fit_scored, precision
from filters.learning.templates import SCORED, TEMPLATES, Template
from filters.rule import Rule
from filters.rules import RuleSet

PARTS = (
    *(f"score_{label}" for label in Label),
    "p_genuine",
)


def features(n: int, **columns: Any) -> Features:
    """Of n turns; what is not given is unknown, and no test on it holds."""
    unknown = {name: np.full(n, np.nan) for name in FEATURES}
    return Features(unknown | {k: np.asarray(v, dtype=float) for k, v in columns.items()}, np.ones(n, dtype=bool))


def fit(template: Template | list[Template], *tiers: str, **table: Any) -> tuple[Rule, ...]:
    """Rules by these forms on turns given as columns: labels, sampled and features."""
    sampled = np.asarray(table.pop("sampled"), dtype=bool)
    labels = np.asarray(table.pop("labels"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "TEMPLATES", template if isinstance(template, list) else [template])
        return fit_rules({"text", *tiers}, features(len(labels), **table), labels, sampled)


SHORT = Template("short", Label.DEGENERATE, (("chars", "<=", (10, 20, 30)),))


def turns(*groups: tuple[int, str, float], sampled: bool = True) -> dict[str, Any]:
    """Columns of turns given as (how many, label, characters)."""
    return {
        "labels": [label for count, label, _ in groups for _ in range(count)],
        "chars": [chars for count, _, chars in groups for _ in range(count)],
        "sampled": [sampled for count, *_ in groups for _ in range(count)],
    }


def values(rules: tuple[Rule, ...]) -> list[list[float]]:
    return [[test.value for test in rule.tests] for rule in rules]


def test_of_the_thresholds_that_are_precise_enough_the_one_that_catches_most() -> None:
    given = turns((20, "degenerate", 5), (10, "degenerate", 15), (10, "generic", 25))
    (rule,) = fit(SHORT, **given)
    assert (rule.name, rule.label, values((rule,)), rule.support) == ("short", Label.DEGENERATE, [[20]], 30)
    less = Template("short", Label.DEGENERATE, SHORT.tests, least_right=0.7)
    assert values(fit(less, **turns((20, "degenerate", 5), (15, "degenerate", 25), (10, "generic", 25)))) == [[30]]


def test_few_lucky_hits_are_no_rule() -> None:
    """Two turns are imagined to have been wrong: at .8, seven right ones of seven are too few and eight enough."""
    assert fit(SHORT, **turns((7, "degenerate", 5))) == ()
    assert values(fit(SHORT, **turns((8, "degenerate", 5)))) == [[10]]


@pytest.mark.parametrize("sampled", [True, False])
def test_no_rule_catches_more_than_a_few_genuine_turns(sampled: bool) -> None:
    assert values(fit(SHORT, **turns((20, "degenerate", 5), (1, "follow_up", 5), sampled=sampled))) == [[10]]
    assert fit(SHORT, **turns((20, "degenerate", 5), (2, "follow_up", 5), sampled=sampled)) == ()
    assert values(fit(SHORT, **turns((30, "degenerate", 5), (2, "follow_up", 5), sampled=sampled))) == [[10]]


def test_genuine_turns_of_one_kind_are_not_outweighed_by_the_other() -> None:
    written, sampled = turns((60, "degenerate", 5), sampled=False), turns((2, "follow_up", 5), sampled=True)
    assert fit(SHORT, **{name: written[name] + sampled[name] for name in written}) == ()


def test_a_rule_is_judged_on_what_those_before_it_left() -> None:
    given = turns((20, "degenerate", 5), (20, "malformed", 25))
    again = Template("again", Label.DEGENERATE, (("chars", "<=", (10,)),))
    rest = Template("rest", Label.MALFORMED, (("chars", "<=", (30,)),))
    assert [(rule.name, rule.support) for rule in fit([SHORT, again, rest], **given)] == [("short", 20), ("rest", 20)]
    assert fit([rest], **given) == (), "before the first rule took its turns this one was right half the time"


def test_two_tests_are_chosen_together() -> None:
    given = turns((20, "degenerate", 5), (20, "degenerate", 25), (20, "generic", 25))
    both = Template("both", Label.DEGENERATE, (("chars", "<=", (10, 30)), ("lines", ">=", (1, 2))))
    assert values(fit(both, **given, lines=[1] * 20 + [2] * 20 + [1] * 20)) == [[10, 1]]
    assert values(fit(both, **given, lines=[2] * 40 + [1] * 20)) == [[30, 2]]


def test_what_is_certain_is_kept_whatever_the_data_say() -> None:
    rules = fit_rules(("text",), features(5), np.array(["follow_up"] * 5), np.ones(5, dtype=bool))
    certain = [form.name for form in TEMPLATES if form.certain and form.tiers <= {"text"}]
    assert [rule.name for rule in rules] == certain
    assert "control tokens: control >= 1 -> malformed" in map(str, rules)
    sure = Template("sure", Label.DEGENERATE, SHORT.tests, certain=True)
    assert values(fit(sure, **turns((9, "follow_up", 5)))) == [[10]]
    assert values(fit(sure, **turns((9, "degenerate", 5), (9, "degenerate", 25)))) == [[30]], "the data may choose"


def test_a_form_is_for_the_sets_that_have_its_features() -> None:
    far = Template("far", Label.OFF_TOPIC, (("cos_answer", "<=", (0.1,)),))
    given = {"labels": ["off_topic"] * 9, "sampled": [True] * 9, "cos_answer": [0.0] * 9}
    assert fit(far, **given) == ()
    assert values(fit(far, "embedding", **given)) == [[0.1]]


def test_forms_have_their_own_names_and_at_most_four_tests() -> None:
    for tiers in (choice for choices in READS.values() for choice in choices):
        scored = [form.name for form in SCORED if form.fits(tiers)]
        names = [*(form.name for form in TEMPLATES if form.tiers <= set(tiers)), *scored]
        assert len(set(names)) == len(names) <= 60
        assert len(scored) >= 10
    assert all(
        1 <= len(form.tests) <= 4 and all(options for *_, options in form.tests) for form in (*TEMPLATES, *SCORED)
    )


def scored(n: int = 400, seed: int = 0) -> tuple[Features, np.ndarray, np.ndarray]:
    """Three labels, each with a score that tells mostly, and all other scores low."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(["follow_up", "generic", "off_topic"], size=n)
    columns = {name: rng.uniform(0, 0.05, n) for name in PARTS}
    for label in ("follow_up", "generic", "off_topic"):
        columns[f"score_{label}"] = np.clip(np.where(labels == label, 0.6, 0.2) + rng.normal(0, 0.12, n), 0, 1)
    columns["p_genuine"] = np.clip(np.where(labels == "follow_up", 0.6, 0.2) + rng.normal(0, 0.1, n), 0, 1)
    return features(n, **columns), labels, rng.random(n) < 0.5


def verdicts(rules: tuple[Rule, ...], prepared: Features, fired: np.ndarray) -> np.ndarray:
    decided = RuleSet("text", rules).decide(prepared)
    own = np.array([rules[index].label.value if index >= 0 else "follow_up" for index in decided], dtype="U32")
    return np.where(fired == "", own, fired)


@pytest.mark.parametrize("sources", ["both", "sampled", "written"])
def test_rules_on_scores_raise_the_objective(sources: str) -> None:
    prepared, labels, sampled = scored()
    sampled = sampled if sources == "both" else np.full(len(labels), sources == "sampled")
    fired = np.full(len(labels), "", dtype="U32")
    rules = fit_scored(("text",), prepared, labels, sampled, fired)
    names = {rule.name: rule for rule in rules}
    assert {"reads like a remark for any answer", "reads like another subject"} <= names.keys()
    given = verdicts(rules, prepared, fired)
    assert (given == labels).mean() > 0.85
    first = tuple(
        Rule(form.name, form.label, tuple(search.Threshold(name, op, options[0]) for name, op, options in form.tests))
        for form in SCORED
        if form.fits(("text",))
    )
    reached, begun, nothing = (
        search._objective(some, labels, sampled)
        for some in (given, verdicts(first, prepared, fired), np.full(len(labels), "follow_up", dtype="U32"))
    )
    assert reached > begun > nothing


def test_rules_on_scores_say_only_what_tells_something() -> None:
    """A test that always holds is left out, and a rule that no threshold makes useful."""
    prepared, labels, sampled = scored()
    rules = fit_scored(("text",), prepared, labels, sampled, np.full(len(labels), "", dtype="U32"))
    tests = [(test.feature, test.op, test.value) for rule in rules for test in rule.tests]
    assert ("p_genuine", "<=", 1.0) not in tests
    assert all(rule.tests for rule in rules)
    blind = Features(prepared.values | {"p_genuine": np.full(len(labels), 0.5)}, prepared.english)
    rules = fit_scored(("text",), blind, labels, sampled, np.full(len(labels), "", dtype="U32"))
    assert not [rule for rule in rules if rule.name.startswith("hardly a follow-up")]


def test_scores_of_what_other_rules_decided_change_nothing() -> None:
    prepared, labels, sampled = scored()
    fired = np.where(labels == "generic", "generic", "").astype("U32")
    other = {name: np.where(fired == "", prepared.values[name], 0.99) for name in PARTS}
    rules = fit_scored(("text",), prepared, labels, sampled, fired)
    assert fit_scored(("text",), prepared.plus(other), labels, sampled, fired) == rules
    assert (verdicts(rules, prepared, fired) == labels).mean() > 0.9


def test_precision_and_f1_by_hand() -> None:
    given = np.array(["generic", "generic", "off_topic", "generic"])
    truth = np.array(["generic", "off_topic", "generic", "generic"])
    assert precision(given, truth, "generic") == pytest.approx(2 / 3)
    assert f1(given, truth, "generic") == pytest.approx(2 / 3)
    assert (precision(given, truth, "malformed"), f1(given, truth, "malformed")) == (1.0, 0.0)
