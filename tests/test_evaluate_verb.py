"""`selfplay evaluate`: what it writes and prints, that nothing leaks into a fold, and that a mistake is one line."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import Result
from rich.console import Console

from filters import Rules, load_rules
from filters.learning import learn
from rerank import save_weights
from rerank.learn import train as learn_weights
from selfplay.evaluation import held_out, report
from selfplay.evaluation.plot import SHOWN
from selfplay.evaluation.scores import BASELINES, OURS
from selfplay.evaluation.shown import decimal, interval, percent, show
from selfplay.learning.training import read_judged
from tests import verbs
from tests.judged_turns import learn_roughly, write_judged

evaluate, mistake = partial(verbs.call, "evaluate"), partial(verbs.mistake, "evaluate")


@pytest.fixture(scope="module", autouse=True)
def rough() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        learn_roughly(patch)
        patch.setattr(report, "RESAMPLES", 40)
        patch.setattr(learn, "train", shipped_if_enough)
        yield


def shipped_if_enough(table: pl.DataFrame, models: object = None, seed: int = 0) -> Rules:
    """In place of learning, which takes seconds a fold: the same complaints, then the shipped rules."""
    judged = learn.read(table, seed)
    learn.divided(judged, np.zeros(len(judged.labels), dtype=bool))
    rules = load_rules()
    return Rules(rules.sets, {"contexts": set(table["context"])}, rules.models)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two generators: `tiny`, and `small` in ten conversations of sixty."""
    folder = write_judged(tmp_path_factory.mktemp("judged"))
    change(folder, lambda row: {"source": "small"} if row["source"] == "tiny" and number(row) < 10 else {})
    return folder


def number(row: dict[str, Any]) -> int:
    return int(row["context"][1:])


def change(folder: Path, to: Any) -> None:
    path = folder / "judged_turns.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | to(row)) + "\n" for row in rows))


@pytest.fixture(scope="module")
def evaluated(judged: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("out") / "evaluation"
    done = evaluate(judged, "-o", out, "--tiers", "text", "--folds", 3, "--seed", 1)
    assert done.exit_code == 0, done.output
    return out, done


@pytest.fixture(scope="module")
def found(evaluated: tuple[Path, Result]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((evaluated[0] / "evaluation.json").read_text())
    return value


def test_it_selects_better_than_chance_and_not_above_the_oracle(found: dict[str, Any]) -> None:
    selection = found["selection"]
    assert selection["turns"] == 300
    assert selection["n"][0] == 1
    assert selection["n"][-1] == "all"
    curves = {name: [point[0] for point in curve] for name, curve in selection["curves"].items()}
    assert set(curves) == {OURS, "filter, no p_genuine", "groundedness alone", "p_genuine alone", "a random survivor",
                           "longest", "random", "oracle"}  # fmt: skip
    assert all(curve[0] == curves["random"][0] for curve in curves.values())
    assert curves["random"][-1] < curves[OURS][-1] <= curves["oracle"][-1]
    value, low, high = selection["minus"]["random"]
    assert value == pytest.approx(curves[OURS][-1] - curves["random"][-1], abs=1e-3)
    assert low <= value <= high
    assert selection["ratio_oracle"][0] == pytest.approx(curves[OURS][-1] / curves["oracle"][-1], abs=1e-3)


def test_scores_are_weighed_for_each_kind_of_turn(found: dict[str, Any]) -> None:
    assert set(found["order"]) == {"sampled", "small", "tiny", "written"}
    assert found["order"]["written"]["turns"] == 180
    for group in found["order"].values():
        figures = group["scores"]["groundedness"]
        assert set(figures) == {"auc_near", "auc", "spearman", "spearman_near", "ndcg"}
        assert figures["auc"][0] > 0.7


def test_every_text_signal_is_left_out_once(found: dict[str, Any]) -> None:
    assert {"tier text", "anchors", "length", "tier wording", "pointing"} < set(found["ablation"])
    assert not any("pmi" in name or "embedding" in name for name in found["ablation"])
    for tier in ("tier text", "tier wording"):  # these turns are plain: either tier tells them apart without the other
        assert abs(found["ablation"][tier]["auc_lost"][0]) < 0.1


def test_each_generator_is_left_out_once(found: dict[str, Any]) -> None:
    small, tiny = found["left_out"]["small"], found["left_out"]["tiny"]
    assert (small["turns"], small["fits"], small["no_rules"]) == (50, 1, None)
    assert set(small["selected"]) == {OURS, "groundedness alone"}
    assert small["selected"][OURS]["unseen"][0] > small["random"][0]
    assert tiny["fits"] == 3
    assert "p_genuine takes 200" in tiny["no_rules"]
    assert set(tiny["selected"]) == {"groundedness alone"}


def test_the_files_are_whole(evaluated: tuple[Path, Result]) -> None:
    out = evaluated[0]
    assert sorted(path.name for path in out.iterdir()) == [
        "curves.png", "curves.svg", "evaluation.json", "turns.parquet"
    ]  # fmt: skip
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    svg = (out / "curves.svg").read_text()
    assert svg.startswith("<?xml")
    table = pl.read_parquet(out / "turns.parquet")
    assert len(table) == 480
    assert table["p_genuine"].null_count() == 0
    assert table.group_by("context").agg(pl.col("fold").n_unique())["fold"].max() == 1


def test_every_baseline_has_a_curve_in_the_plot() -> None:
    assert {OURS, "random", "oracle", *BASELINES} == set(SHOWN)


def test_it_prints_what_it_found_in_80_columns(evaluated: tuple[Path, Result], found: dict[str, Any]) -> None:
    text = evaluated[1].stdout
    for part in (
        "300 sampled turns",
        "learned anew in 3 folds",
        OURS,
        "times random",
        "of the oracle",
        "as a run selects",
        "near is AUC of follow_up",
        "without a signal",
        "tiny left out: 250 turns at 50 sites",
        "no rules without it",
    ):
        assert part in text
    assert interval(found["selection"]["selected"][OURS]) in text
    assert "fold 3 of 3" in evaluated[1].stderr
    console = Console(force_terminal=True, width=80, record=True, file=io.StringIO())
    show(found, console)
    on_terminal = console.export_text()
    for each in (text, on_terminal):
        assert "…" not in each
        assert "\x1b" not in each
    # Tables keep to the width; sentences are wrapped by the terminal.
    assert max(len(line) for line in on_terminal.splitlines()) <= 80


def test_no_turn_is_filtered_or_ranked_by_what_its_conversation_taught(
    judged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filtered, learn_weights, rank = held_out.filtered, held_out.learn_weights, held_out.rerank.rank
    seen: list[tuple[str, set[str], set[str], set[str]]] = []
    taught: list[pl.DataFrame] = []

    def filtering(table: pl.DataFrame, rules: Rules) -> pl.DataFrame:
        seen.append(("rules", rules.training["contexts"], set(table["context"]), set(table["source"])))
        return filtered(table, rules)

    def learning(table: pl.DataFrame) -> Any:
        taught.append(table)
        return learn_weights(table)

    def ranking(table: pl.DataFrame, weights: Any, by: str) -> pl.DataFrame:
        seen.append(("weights", set(taught[-1]["context"]), set(table["context"]), set(table["source"])))
        assert not set(taught[-1]["source"]) & set(table["source"])
        return rank(table, weights, by)

    monkeypatch.setattr(held_out, "filtered", filtering)
    monkeypatch.setattr(held_out, "learn_weights", learning)
    monkeypatch.setattr(held_out.rerank, "rank", ranking)
    monkeypatch.setattr(report, "ablation_of", lambda *_: {})  # ranks with other signals, by the same folds
    assert evaluate(judged, "--tiers", "text", "--folds", 4).exit_code == 0
    assert [what for what, *_ in seen] == ["rules"] * 4 + ["rules", "weights"] + ["weights"] * 4
    assert not any(learned & judged for _, learned, judged, _ in seen)
    assert len(set().union(*(judged for _, _, judged, _ in seen[:4]))) == 60
    assert len(set().union(*(judged for _, _, judged, sources in seen[6:]))) == 50


def test_without_learning_the_shipped_ones_are_taken(judged: Path, tmp_path: Path) -> None:
    done = evaluate(judged, "-o", tmp_path / "out", "--tiers", "text", "--no-learning")
    assert done.exit_code == 0, done.output
    assert "rules: shipped, weights: shipped, taken as they are" in done.stdout
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found["learned"] == {"rules": "shipped", "weights": "shipped", "learned_from_these": False}
    assert "ablation" not in found
    again = evaluate(judged, "-o", tmp_path / "again", "--tiers", "text", "--no-learning")
    assert again.stdout == done.stdout
    for name in ("evaluation.json", "curves.svg", "curves.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_weights_learned_from_these_very_turns_are_told(judged: Path, tmp_path: Path) -> None:
    save_weights(learn_weights(read_judged(judged)), str(tmp_path / "w.json"))
    done = evaluate(judged, "--tiers", "text", "--no-learning", "--weights", tmp_path / "w.json")
    assert "learned from these very turns: the figures are too good" in done.stdout


def test_without_matplotlib_all_but_the_plot_is_there(
    judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfplay.evaluation.evaluating.find_spec", lambda name: None)
    done = evaluate(judged, "-o", tmp_path / "out", "--tiers", "text", "--no-learning")
    assert done.exit_code == 0
    assert "pip install 'selfplay-turns[plot]'" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["evaluation.json", "turns.parquet"]
    assert "pip install 'selfplay-turns[train]'" in mistake(judged, "--tiers", "text")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rules", "r.json"], "--rules and --weights are for --no-learning"),
        (["--folds", "1"], "--folds"),
        (["--signals", "s.parquet"], "--tiers text measures none"),
        (["--signals", "nowhere/s.parquet", "--tiers", "all"], "nowhere/s.parquet: cannot be written"),
        (["--folds", "70"], "60 conversations make no 70 folds"),
        (["--tiers", "auto"], "--tiers"),
        (["--no-learning", "--weights", "nowhere.json"], "nowhere.json"),
        (["--no-learning", "--rules", "nowhere.json"], "nowhere.json"),
    ],
)
def test_a_wrong_option_is_one_line(judged: Path, options: list[str], message: str) -> None:
    assert message in mistake(judged, "--tiers", "text", *options)


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ({"source": "written"}, "every turn is `written`"),
        ({"label": "follow_up"}, "of the sampled turns all or none are genuine"),
        ({"label": "rude"}, "label 'rude' is none of malformed"),
    ],
)
def test_turns_that_tell_nothing_are_one_line(judged: Path, tmp_path: Path, to: dict[str, str], message: str) -> None:
    shutil.copytree(judged, tmp_path / "j")
    change(tmp_path / "j", lambda row: to)
    assert message in mistake(tmp_path / "j", "--tiers", "text")


def test_figures_read_well() -> None:
    assert interval([0.488, 0.42, 1.0]) == ".488 [.420, 1.000]"
    assert interval([0.0664, -0.017, 0.1], signed=True) == "+.066 [-.017, +.100]"
    assert interval([2.7, 2.44, 2.96], digits=2) == "2.70 [2.44, 2.96]"
    assert decimal(None) == "–"
    assert percent([0.8097, 0.76, 0.85]) == "81 % [76, 85]"
    assert percent([None, None, None]) == "–"
