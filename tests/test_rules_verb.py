"""The verb `rules`: what it shows is what the file says, what it explains is what decided, and hands may edit."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from rich.text import Text

from filters import load_rules
from filters.features import FEATURES
from filters.labels import Label
from filters.rule import Rule, Threshold
from filters.wording import condition, sentence, valued
from selfplay.cli import cli
from selfplay.errors import UsageError
from selfplay.pages import Page

MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Do herbs need light?"},
    {"role": "assistant", "content": "They do."},
    {"role": "user", "content": "How do I keep basil alive on a kitchen windowsill during winter?"},
    {
        "role": "assistant",
        "content": "Add a small grow lamp 15 cm above the leaves, and water when the soil feels dry.",
    },
]
TURNS = {
    "good": "15 cm seems close, won't a lamp that near scorch the leaves?",
    "token": "Which lamp? \x1b[31m<|im_end|>",
    "help": "Glad that helped! Let me know if you have other questions.",
}


@pytest.fixture
def turns(tmp_path: Path) -> Path:
    path = tmp_path / "turns.jsonl"
    rows = [{"id": name, "messages": MESSAGES, "turn": turn} for name, turn in TURNS.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, ["rules", *map(str, args)])


def edited(tmp_path: Path, change: Any) -> Path:
    """A copy of the shipped rules, by the documented way, with `change` made in it."""
    data = json.loads(invoke("show", "--file").stdout)
    change(data)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(data))
    return path


def labels(turns: Path, rules: Path) -> list[str]:
    result = CliRunner().invoke(cli, ["filter", str(turns), "--rules", str(rules), "--tiers", "text"])
    assert result.exit_code == 0, result.exception
    return [json.loads(line)["label"] for line in result.stdout.splitlines()]


def test_show_tells_every_rule_of_both_sets_in_order_with_its_figures() -> None:
    text = invoke("show").stdout
    rules = load_rules()
    place = 0
    for name, rule_set in rules.sets.items():
        place = text.index(f"\n{name}: {len(rule_set.rules)} rules, needs text", place)
        for number, rule in enumerate(rule_set.rules, 1):
            place = text.index(f"{number:2}. {rule.name}\n    {sentence(rule)}\n", place)
            for source, counts in rule.precision.items():
                told = f"{counts.right:,} of {counts.fired:,}" if counts.fired else "never decided"
                place = text.index(f"    {source}", place)
                assert told in text[place:].split("\n", 1)[0]
    assert str(rules.training["sha256"])[:12] in text
    assert f"{rules.training['turns']:,} judged turns" in text
    assert all(str(model["model"]) in text for model in rules.models.values())


def test_show_of_one_set_as_json() -> None:
    told = json.loads(invoke("show", "--set", "text", "--json").stdout)
    assert list(told["sets"]) == ["text"]
    rule_set = load_rules().sets["text"]
    assert told["sets"]["text"]["tiers"] == ["text"]
    for shown, rule in zip(told["sets"]["text"]["rules"], rule_set.rules, strict=True):
        assert (shown["name"], shown["label"], shown["enabled"]) == (rule.name, rule.label.value, rule.enabled)
        assert shown["tests"] == [[test.feature, test.op, test.value] for test in rule.tests]
        for source, counts in shown["precision"].items():
            share = counts["decided"] / rule_set.held_out[source]["turns"]
            assert counts["share_decided"] == pytest.approx(share)


def test_certificates_and_rules_switched_off_are_told(tmp_path: Path) -> None:
    def change(data: Any) -> None:
        first, second, third = data["sets"]["text"]["rules"][:3]
        first["certified"] = {"precision": 0.9, "n": 94, "right": 94, "bound": 0.96}
        second["certified"] = {"precision": 0.9, "n": 12, "right": 12, "bound": 0.78}
        third["enabled"] = False

    text = invoke("show", "--rules", edited(tmp_path, change), "--set", "text").stdout
    first, second, third = text.split("\n\n")[2:5]
    assert "; certified ≥ .90 (n=94, at least .96)" in first
    assert "; not certified (n=12)" in second
    assert "(switched off)" in third.split("\n")[0]
    assert text.count("(switched off)") == 1


@pytest.mark.parametrize("width", [40, 80, 200])
def test_on_a_terminal_no_line_is_wider_than_it(width: int, monkeypatch: pytest.MonkeyPatch, turns: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(Page.__init__, "__defaults__", (console,))
    for args in (["show"], ["features"], ["explain", turns, "--id", "token", "--rules", "text", "--all"]):
        assert invoke(*args).exit_code == 0
    lines = out.getvalue().split("\n")
    assert len(lines) > 200
    assert max(map(len, lines)) <= width


def test_what_follows_a_break_hangs() -> None:
    out = io.StringIO()
    page = Page(Console(file=out, width=30, force_terminal=True, color_system=None))
    page.line(Text("one two three four five six seven eight nine ten"), indent=2, hang=4)
    first, *rest = out.getvalue().rstrip().split("\n")
    assert first.startswith("  one")
    assert all(line.startswith("      ") and line[6] != " " for line in rest)
    assert " ".join(out.getvalue().split()) == "one two three four five six seven eight nine ten"


def test_explain_stops_at_the_rule_that_decided_and_quotes_what_met_it(turns: Path) -> None:
    text = invoke("explain", turns, "--id", "token", "--rules", "text").stdout
    assert "turn       Which lamp? \\x1b[31m<|im_end|>" in text
    assert "\x1b" not in text
    assert "label      malformed, by the rule control tokens" in text
    assert 'held  it has control tokens the conversation lacks: 1  "<|im_end|>"' in text
    rules = load_rules().sets["text"].rules
    place = next(index for index, rule in enumerate(rules) if rule.name == "control tokens")
    assert f"{place + 1:2}. control tokens → malformed  decides" in text
    assert rules[place + 1].name not in text
    everything = invoke("explain", turns, "--id", "token", "--rules", "text", "--all").stdout
    assert all(f"{number:2}. {rule.name} → {rule.label}" in everything for number, rule in enumerate(rules, 1))
    assert everything.count("decides") == 1


def test_explain_agrees_with_filter_for_every_turn(turns: Path) -> None:
    result = CliRunner().invoke(cli, ["filter", str(turns), "--rules", "text"])
    for number, row in enumerate(map(json.loads, result.stdout.splitlines()), 1):
        text = invoke("explain", turns, "--row", number, "--rules", "text").stdout
        decided = f"by the rule {row['rule']}" if row["rule"] else "no rule fired"
        assert f"label      {row['label']}, {decided}\n" in text
        assert f"p_genuine  {row['p_genuine']:.2f}\n" in text
        assert text.count("  decides") == (row["rule"] is not None)


def test_explain_shows_the_tail_of_the_conversation_and_each_labels_score(turns: Path) -> None:
    text = invoke("explain", turns, "--rules", "text").stdout
    assert text.startswith("(2 earlier messages)\nassistant  They do.\nuser       How do I keep")
    assert "turn       15 cm seems close" in text
    told, likelihood = text[text.index("\nScores") :].strip().split("\n\n")
    scores = told.split("\n")[1:]
    assert sorted(line.split()[0] for line in scores) == sorted(Label)
    values = [float(line.split()[1]) for line in scores]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=0.05)
    p = text.split("p_genuine  ")[1].split("\n")[0]
    assert likelihood.split("\n")[1].split()[:2] == ["follow_up", p]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--id", "none"], "turns.jsonl: no row with id none; the first ones are good, token, help"),
        (["--row", "4"], "turns.jsonl: no row 4; there are 3"),
        (["--row", "1", "--id", "good"], "--id and --row: give one of them"),
        (["--rules", "full", "--tiers", "text"], "contradict each other"),
    ],
)
def test_mistakes_of_explain_are_one_line(turns: Path, options: list[str], said: str) -> None:
    result = invoke("explain", turns, *options)
    assert isinstance(result.exception, UsageError)
    assert said in str(result.exception)
    assert "\n" not in str(result.exception)


def test_a_set_that_a_file_lacks_is_said(tmp_path: Path) -> None:
    path = edited(tmp_path, lambda data: data["sets"].pop("full"))
    assert invoke("show", "--rules", path).exit_code == 0
    result = invoke("show", "--rules", path, "--set", "full")
    assert "mine.json: no set 'full'; there are text" in str(result.exception)


def test_a_rule_added_by_hand_decides_is_shown_and_explained(turns: Path, tmp_path: Path) -> None:
    rule = {"name": "speaks of scorching", "label": "off_topic", "tests": [["question", ">=", 1], ["chars", "<=", 80]]}
    path = edited(tmp_path, lambda data: data["sets"]["text"]["rules"].insert(0, rule))
    assert labels(turns, path)[0] == "off_topic"
    shown = invoke("show", "--rules", path, "--set", "text").stdout
    assert (
        " 1. speaks of scorching\n    If the turn has question marks and the length in characters is at most 80"
        in shown
    )
    assert "added by hand; not certified" in shown
    explained = invoke("explain", turns, "--rules", path, "--tiers", "text").stdout
    assert " 1. speaks of scorching → off_topic  decides\n    held  it has question marks: 1\n" in explained


def test_a_rule_switched_off_or_edited_no_longer_decides(turns: Path, tmp_path: Path) -> None:
    assert labels(turns, edited(tmp_path, lambda data: None))[1:] == ["malformed", "identity_leakage"]

    def off(data: Any) -> None:
        for rule in data["sets"]["text"]["rules"]:
            rule["enabled"] = False

    path = edited(tmp_path, off)
    assert labels(turns, path) == ["follow_up"] * 3
    assert (
        "control tokens → malformed  switched off"
        in invoke("explain", turns, "--id", "token", "--rules", path, "--tiers", "text").stdout
    )

    def more(data: Any) -> None:
        (rule,) = (rule for rule in data["sets"]["text"]["rules"] if rule["name"] == "control tokens")
        rule["tests"] = [["control", ">=", 2]]

    result = invoke("explain", turns, "--id", "token", "--rules", edited(tmp_path, more), "--tiers", "text").stdout
    assert "no    it has at least 2 control tokens the conversation lacks: 1" in result


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"label": "generic", "tests": [["new", ">=", 1]]}, "sets.text.rules[0] has no name"),
        ({"name": "x", "label": "bad", "tests": [["new", ">=", 1]]}, "sets.text.rules[0] (x): label 'bad' is none of"),
        ({"name": "x", "label": "generic", "tests": [["news", ">=", 1]]}, "tests[0]: no feature 'news'"),
        ({"name": "x", "label": "generic", "tests": [["new", ">", 1]]}, "tests[0]: operator '>' is neither"),
        ({"name": "x", "label": "generic", "tests": [["new", ">=", "1"]]}, "tests[0]: '1' is not a number"),
        ({"name": "x", "label": "follow_up", "tests": [["new", ">=", 1]]}, "none may give the label 'follow_up'"),
        ({"name": "x", "label": "generic", "tests": [["cos_query", ">=", 1]]}, "reads the embedding tier"),
    ],
)
def test_a_mistake_of_a_hand_is_one_line_with_file_and_place(tmp_path: Path, rule: dict[str, Any], said: str) -> None:
    path = edited(tmp_path, lambda data: data["sets"]["text"]["rules"].insert(0, rule))
    result = invoke("show", "--rules", path)
    assert isinstance(result.exception, UsageError)
    assert str(path) in str(result.exception)
    assert said in str(result.exception)
    assert "\n" not in str(result.exception)


def test_the_list_of_features_has_all_that_a_rule_may_test() -> None:
    told = invoke("features").stdout
    assert all(f"  {name} " in told for name in FEATURES)


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (("control", ">=", 1), "it has control tokens the conversation lacks"),
        (("question", "<=", 0), "it has no question marks"),
        (("new", ">=", 3), "it has at least 3 content words nobody said before"),
        (("new", "<=", 3), "it has at most 3 content words nobody said before"),
        (("query_cover", ">=", 0.7), "the share of the turn's words in an earlier user message is at least 70%"),
        (("cut", ">=", 1), "it is cut at the token limit"),
        (("cut", "<=", 0), "it is not cut at the token limit"),
        (("textbook", "<=", 0), "it does not open like a self-contained request"),
        (("chars", "<=", 30), "the length in characters is at most 30"),
        (("loop", ">=", 4), "the same stretch follows itself at least 4 times"),
        (("score_off_topic", ">=", 0.5), "the score for off_topic is at least 0.5"),
        (("p_genuine", "<=", 0.2), "p_genuine is at most 0.2"),
        (("cos_query", ">=", 0.7), "the cosine to the last user message is at least 0.7"),
    ],
)
def test_tests_in_words(test: tuple[str, str, float], words: str) -> None:
    assert condition(Threshold(*test)) == words


def test_sentences_join_their_tests() -> None:
    tests = (Threshold("new", "<=", 0), Threshold("question", "<=", 0), Threshold("chars", ">=", 9))
    assert sentence(Rule("x", Label.GENERIC, tests)) == (
        "If the turn has no content words nobody said before, it has no question marks and the length in characters "
        "is at least 9, it is generic."
    )


def test_values_in_words() -> None:
    given = {"query_cover": 0.715, "cut": 1, "ends": 0, "chars": 1234.0, "cos_query": float("nan"), "p_genuine": 1e-5}
    assert [valued(*entry) for entry in given.items()] == ["71.5%", "yes", "no", "1,234", "unknown", "0.000"]
