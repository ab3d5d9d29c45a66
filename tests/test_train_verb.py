"""`selfplay train`: what it writes and prints, and that a mistake is one line."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from filters import load_rules
from filters.features import SIGNALS
from filters.learning import learn
from selfplay.learning.shown import show
from tests import verbs
from tests.judged_turns import learn_roughly, write_judged

train, mistake = partial(verbs.call, "train"), partial(verbs.mistake, "train")


@pytest.fixture(scope="module", autouse=True)
def rough() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        learn_roughly(patch)
        yield


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_judged(tmp_path_factory.mktemp("judged"))


@pytest.fixture(scope="module")
def trained(judged: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("out") / "rules.json"
    done = train(judged, "-o", out, "--set", "text", "--apart", 0.3, "--min-precision", 0.8,
                 "--min-precision", "malformed=0.6", "--seed", 1)  # fmt: skip
    assert done.exit_code == 0
    return out, done.output


def test_it_writes_one_set_with_certificates(trained: tuple[Path, str]) -> None:
    rules = load_rules(str(trained[0]))
    assert list(rules.sets) == ["text"]
    assert rules.models == {}  # nothing was measured
    assert rules.training["apart"] == 18
    asked = {rule.label.value: rule.certified.precision for rule in rules.sets["text"].rules if rule.certified}
    assert asked["malformed"] == 0.6
    assert set(asked.values()) == {0.6, 0.8}


def test_it_prints_figures_for_both_kinds_of_turns(trained: tuple[Path, str]) -> None:
    path, text = trained
    rule_set = load_rules(str(path)).sets["text"]
    certified = sum(rule.certified.holds for rule in rule_set.rules if rule.certified)
    assert 0 < certified < len(rule_set.rules)
    assert f"{len(rule_set.rules)} rules learned from 336 turns, {certified} certified" in text
    assert "sampled: 210 turns of 42 conversations" in text
    assert "written: 126 turns of 42 conversations" in text
    for source in ("sampled", "written"):
        n = rule_set.held_out[source]["labels"]["prompt_restatement"]["n"]
        row = next(line for line in text.split(f"{source}:")[1].splitlines() if line.startswith("prompt_restatement"))
        assert row.split()[1] == str(n)
        assert row.count("[") == 3  # precision, recall and F1 with their intervals
    for part in ("macro-F1", "judged \\ labelled", "AUC", "calibration error", "precision .75", "ceiling:"):
        assert part in text
    assert "…" not in text
    assert "\x1b" not in text


def test_on_a_terminal_it_fits_80_columns(trained: tuple[Path, str]) -> None:
    console = Console(force_terminal=True, width=80, record=True, file=io.StringIO())
    show(load_rules(str(trained[0])), {}, console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "prompt_restatement" in text
    assert "ceiling" not in text


def test_the_same_seed_gives_the_same_rules(judged: Path, tmp_path: Path, trained: tuple[Path, str]) -> None:
    again = train(judged, "--rules", tmp_path / "r.json", "--set", "text", "--apart", 0.3, "--min-precision", 0.8,
                  "--min-precision", "malformed=0.6", "--seed", 1, "--no-ceiling")  # fmt: skip
    assert "ceiling" not in again.output
    assert (tmp_path / "r.json").read_bytes() == trained[0].read_bytes()


@pytest.fixture(scope="module")
def unproved(judged: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Learned without turns kept apart, from a file as judges write it."""
    folder = tmp_path_factory.mktemp("unproved")
    contexts = {row["id"]: row["messages"] for row in lines(judged / "contexts.jsonl")}
    rows = [
        {
            "id": row["id"],
            "conversation_id": row["context"],
            "messages": contexts[row["context"]],
            "turn": row["text"] + " " * number,  # no two alike: of the same turn judged twice one is kept
            **{name: row[name] for name in ("source", "label", "groundedness")},
        }
        for number, row in enumerate(lines(judged / "judged_turns.jsonl"))
    ]
    (folder / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = folder / "r.json"
    done = train(folder / "judged.jsonl", "-o", out, "--set", "text", "--apart", 0, "--no-ceiling")
    return out, done.output


def test_without_turns_apart_none_is_certified(unproved: tuple[Path, str]) -> None:
    path, text = unproved
    assert "none certified (nothing was kept apart)" in text
    assert all(rule.certified is None for rule in load_rules(str(path)).sets["text"].rules)


def test_it_takes_a_file_as_judges_write_it(unproved: tuple[Path, str]) -> None:
    path, text = unproved
    assert "480 judged turns of 60 conversations (300 tiny, 180 written)" in text
    assert load_rules(str(path)).sets["text"].rules


@pytest.mark.parametrize("known", [1.0, 0.1])
def test_the_hidden_state_is_read_where_enough_turns_have_one_and_else_the_likelihoods(
    judged: Path, tmp_path: Path, known: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learn, "INPUTS", {"text": ("chars",), "likelihood": ("answer_pmi",)})
    monkeypatch.setattr(learn, "fit_scored", lambda *_: ())
    rng = np.random.default_rng(0)
    turns = lines(judged / "judged_turns.jsonl")
    states = rng.normal(size=(len(turns), 6)) + np.array([[3.0 * (row["label"] == "follow_up")] for row in turns])
    kept = {"id": [row["id"] for row in turns]} | {signal.name: rng.normal(size=len(turns)) for signal in SIGNALS}
    cells = [state.tolist() if rng.random() < known else None for state in states]
    table = pl.DataFrame(kept).with_columns(pl.Series("turn_state", cells, pl.List(pl.Float32)))
    models = {"embedder": {"model": "e"}, "scorer": {"model": "s"}, "turn_state": {"layer": 16}}
    table.write_parquet(tmp_path / "s.parquet", metadata={"models": json.dumps(models)})
    done = train(judged, "-o", tmp_path / "r.json", "--set", "full", "--apart", 0, "--no-ceiling",
                 "--signals", tmp_path / "s.parquet")  # fmt: skip
    assert done.exit_code == 0
    rules = load_rules(str(tmp_path / "r.json"))
    without = "full: too few sampled turns have the scorer's hidden state; learned from likelihoods" in done.output
    read = {"text", "embedding", "state"} if known == 1 else {"text", "likelihood"}
    assert (rules.layer, without) == ((16, False) if known == 1 else (None, True))
    assert rules.sets["full"].tiers - {"embedding"} == read - {"embedding"}
    assert rules.models == {part: models[part] for part in ("embedder", "scorer")}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--min-precision", "rude=0.9"], "no rule gives the label 'rude'"),
        (["--min-precision", "follow_up=0.9"], "no rule gives the label 'follow_up'"),
        (["--min-precision", "generic=high"], "neither a precision such as 0.9 nor LABEL=0.9"),
        (["--min-precision", "1"], "a precision lies between 0 and 1"),
        (["--min-precision", "nan"], "a precision lies between 0 and 1"),
        (["--apart", "1"], "--apart"),
        (["--apart", "-0.1"], "--apart"),
        (["--set", "words"], "--set"),
        (["--seed", "-1"], "--seed"),
        (["--set", "text", "--scorer-model", "x"], "--scorer-model: the set `text` measures nothing"),
    ],
)
def test_a_wrong_option_is_one_line(judged: Path, tmp_path: Path, options: list[str], message: str) -> None:
    assert message in mistake(judged, "-o", tmp_path / "r.json", *options)
    assert not (tmp_path / "r.json").exists()


def test_nothing_to_write_is_one_line(judged: Path) -> None:
    assert "Missing option '-o'" in mistake(judged)


def test_too_few_turns_are_one_line(judged: Path, tmp_path: Path) -> None:
    few = write_judged(tmp_path, conversations=30)
    assert "only 120 sampled turns besides the 30 kept apart; p_genuine takes 200" in mistake(few, "-o", tmp_path / "r")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "follow_up"}, "of the sampled turns all or none are genuine"),
        ({"source": "written"}, "no sampled turns"),
        ({"label": "rude"}, "label 'rude' is none of malformed"),
        ({"label": 3}, "judged_turns.jsonl line 1: label is '3', not text"),
        ({"text": None}, "judged_turns.jsonl line 1: text is 'None', not text"),
        ({"groundedness": "high"}, "groundedness is 'high', not a whole number"),
        ({"context": "c1"}, "too few to cross-validate"),
    ],
)
def test_turns_that_teach_nothing_are_one_line(tmp_path: Path, change: dict[str, str], message: str) -> None:
    path = write_judged(tmp_path) / "judged_turns.jsonl"
    rows = [row | change for row in lines(path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    apart = ["--apart", 0] if "context" in change else []
    found = mistake(tmp_path, "-o", tmp_path / "r.json", *apart)
    assert message in found
    assert str(tmp_path) in found


def test_without_scikit_learn_it_says_what_to_install(judged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfplay.learning.training.find_spec", lambda name: None)
    assert "pip install 'selfplay-turns[train]'" in mistake(judged, "-o", "r.json")
