"""`selfplay train-ranker`: what it writes and prints, which models it refuses, and that a mistake is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from rerank import load_weights
from selfplay.cli import cli
from selfplay.errors import UsageError
from selfplay.learning import ranker, training
from selfplay.learning.training import read_judged, with_signals
from selfplay.signals.measure import SIGNALS
from selfplay.signals.tiers import SignalModels
from tests.judged_turns import write_judged
from tests.test_measure import FakeTemplate
from tests.test_turn_states import FakeReader

MODELS: dict[str, Any] = {
    "embedder": {"model": "minilm", "revision": "e"},
    "scorer": {"model": "small", "revision": "s", "template_hash": "t"},
}


LAYER = {"turn_state": {"layer": 7}}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_judged(tmp_path_factory.mktemp("judged"), conversations=30)


@pytest.fixture
def kept(judged: Path, tmp_path: Path) -> Path:
    """Signals as if measured: PMI and state tell the grade, the others are noise."""
    table, rng = read_judged(judged), np.random.default_rng(0)
    names = [name for tier in ("embedding", "likelihood") for name in SIGNALS[tier]]
    signals = table.select("id").with_columns(pl.Series(name, rng.normal(size=len(table))) for name in names)
    signals = signals.with_columns(answer_pmi=table["grade"] + rng.normal(0, 0.3, len(table)))
    states = rng.normal(size=(len(table), 4)) + table["grade"].to_numpy()[:, None]
    signals = signals.with_columns(pl.Series("turn_state", states.tolist(), pl.List(pl.Float32)))
    signals.write_parquet(tmp_path / "signals.parquet", metadata={"models": json.dumps(MODELS | LAYER)})
    return tmp_path / "signals.parquet"


@pytest.fixture(autouse=True)
def _no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(tier: str, model: str) -> dict[str, Any]:
        part = "cross_encoder" if tier == "cross" else "scorer"
        return {part: {"model": model}}

    monkeypatch.setattr(training, "expected_versions", named)
    monkeypatch.setattr(training, "load_embedder", lambda: pytest.fail("an embedder was loaded"))
    monkeypatch.setattr(training, "default_scorer", lambda model: pytest.fail("a scorer was loaded"))


def train_ranker(*args: object) -> Result:
    return CliRunner().invoke(cli, ["train-ranker", *map(str, args)])


def test_it_writes_weights_with_their_figures_and_prints_them(judged: Path, kept: Path, tmp_path: Path) -> None:
    done = train_ranker(judged, "-o", tmp_path / "w.json", "--signals", kept, "--folds", 3)
    assert done.exit_code == 0, done.output
    weights = load_weights(str(tmp_path / "w.json"))
    assert weights.measured_with == MODELS
    assert weights.tiers == {"text", "wording", "embedding", "state", "likelihood"}
    assert weights.layer == 7
    assert weights.training["rows"] == 240
    fullest = weights.cv["text+wording+embedding+likelihood"]["sampled"]
    assert fullest["selected"] > fullest["random"]
    assert "240 judged turns; signals by minilm, small" in done.output
    row = next(line for line in done.output.splitlines() if line.startswith("text+wording+likelihood "))
    assert f"{weights.cv['text+wording+likelihood']['sampled']['spearman']:.3f}" in row.split()
    assert max(map(len, done.output.splitlines())) <= 100


def test_the_same_turns_give_the_same_file(judged: Path, kept: Path, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        assert train_ranker(judged, "-o", tmp_path / name, "--signals", kept, "--folds", 0).exit_code == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert load_weights(str(tmp_path / "a.json")).cv == {}


def test_signals_of_another_scorer_are_refused(judged: Path, kept: Path, tmp_path: Path) -> None:
    done = train_ranker(judged, "-o", tmp_path / "w.json", "--signals", kept, "--scorer-model", "large")
    assert isinstance(done.exception, UsageError)
    assert f"{kept} was measured with the scorer 'small', not 'large'; name another file" in str(done.exception)
    assert not (tmp_path / "w.json").exists()


def test_a_cross_encoder_is_measured_on_top_of_what_was_kept(
    judged: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lengths:
        model = "pairs"

        def score(self, pairs: list[tuple[str, str]]) -> list[float]:
            return [float(len(turn)) for turn, _ in pairs]

    monkeypatch.setattr(training, "load_cross_encoder", lambda model: Lengths())
    before = pl.read_parquet(kept)
    table, versions = with_signals(read_judged(judged), kept, SignalModels(cross_encoder="pairs"))
    assert table["cross_score"].drop_nulls().len() == table.filter(pl.col("turn").str.strip_chars() != "").height
    assert versions == {**MODELS, **LAYER, "cross_encoder": {"model": "pairs", "revision": None}}
    after = pl.read_parquet(kept)
    assert after.select(before.columns).equals(before)
    monkeypatch.setattr(training, "load_cross_encoder", lambda model: pytest.fail("measured again"))
    monkeypatch.setattr(training, "expected_versions", lambda tier, model: {"cross_encoder": versions["cross_encoder"]})
    assert with_signals(read_judged(judged), kept, SignalModels(cross_encoder="pairs"))[1] == versions


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere", "-o", "{}/w.json"], "nowhere"),
        (["{judged}", "-o", "{}/no/folder/w.json"], "cannot be written"),
        (["{judged}", "-o", "{}/w.json", "--signals", "{}"], "cannot be written"),
        (["{judged}", "-o", "{judged}/judged_turns.jsonl"], "that is the input"),
        (["{judged}", "-o", "{}/w.json", "--signals", "{judged}/contexts.jsonl"], "that is the input"),
        (["{judged}", "-o", "{}/w", "--signals", "{}/w"], "that is the file of --signals"),
    ],
)
def test_a_mistake_is_one_line(judged: Path, tmp_path: Path, args: list[str], message: str) -> None:
    done = train_ranker(*(arg.replace("{judged}", str(judged)).replace("{}", str(tmp_path)) for arg in args))
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


def test_folds_are_no_more_than_conversations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = write_judged(tmp_path, conversations=4)
    monkeypatch.setattr(ranker, "with_signals", lambda table, kept, models, tiers: (table, {}))
    done = train_ranker(few, "-o", tmp_path / "w.json", "--folds", 5)
    assert done.exit_code == 0, done.output
    assert "held out by conversation, 4 folds" in done.output


@pytest.mark.parametrize("scorer", ["small", "other"])
def test_states_are_measured_beside_kept_likelihoods_by_their_own_scorer_only(
    judged: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, scorer: str
) -> None:
    """A shallow scorer: read where the shipped one is, at two thirds of its depth."""
    found = []

    class Shallow(FakeReader):
        layers = 6

        def close(self) -> None: ...

    def measures(table: pl.DataFrame, tiers: set[str], **models: Any) -> pl.DataFrame:
        found.append(tiers)
        return really(table, tiers, **models)

    really = training.measure
    record = {"scorer": MODELS["scorer"] | {"model": scorer}}
    monkeypatch.setattr(training, "measure", measures)
    monkeypatch.setattr(training, "expected_versions", lambda tier, model=None: record)
    monkeypatch.setattr(training, "signal_versions", lambda *_: record)
    monkeypatch.setattr(training, "default_scorer", lambda model: (Shallow(), FakeTemplate()))
    before = pl.read_parquet(kept).drop("turn_state")
    before.write_parquet(kept, metadata={"models": json.dumps(MODELS)})
    assert with_signals(read_judged(judged), kept, tiers=("embedding", "likelihood"))[1] == MODELS
    if scorer == "other":
        with pytest.raises(UsageError, match="was measured with the scorer 'small', not 'other'"):
            with_signals(read_judged(judged), kept)
        return
    table, versions = with_signals(read_judged(judged), kept)
    assert versions == {**MODELS, "turn_state": {"layer": 4}}
    assert {state[3] for state in table["turn_state"].drop_nulls().to_list()} == {4}
    assert pl.read_parquet(kept).drop("turn_state").equals(before)
    assert with_signals(read_judged(judged), kept)[1] == versions, "kept the next time"
    assert found == [{"state"}]
