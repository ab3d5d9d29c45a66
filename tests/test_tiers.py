"""Which signals are measured, by whom, and what is refused: asked in one place by run, filter and rank."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

import filters
import rerank
from selfplay import judging
from selfplay.cli import cli
from selfplay.errors import EngineError, SelfplayError
from selfplay.signals import measure, tiers
from selfplay.signals.tiers import CHOICES, Measurer, settle
from tests.test_measure import FakeScorer, FakeTemplate

OWN = dict(rerank.load_weights().measured_with)
"""What measured the signals that the shipped weights were learned from."""
OTHER = {"embedder": OWN["embedder"], "scorer": {**OWN["scorer"], "revision": "another"}}
MESSAGES = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "One. Two."}]


class Embedder:
    """Encodes everything alike, and counts how often it was loaded."""

    loaded = 0

    def encode(self, texts: list[str]) -> np.ndarray:
        return np.ones((len(texts), 1), dtype=np.float32)


def expected(tier: str, model: str | None = None) -> dict[str, Any]:
    """What the models of this machine say of themselves."""
    part = measure.PARTS[tier]
    return {part: OWN[part] if model is None else {"model": model, "revision": None}}


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tiers are there; the embedder is a fake one, and the scorer fails when it is loaded."""

    def load_embedder() -> Embedder:
        Embedder.loaded += 1
        return Embedder()

    def fail(model: str | None = None) -> Any:
        raise EngineError("out of memory")

    Embedder.loaded = 0
    parts = {"embedding": "embedder", "state": "scorer", "likelihood": "scorer"}
    monkeypatch.setattr(tiers, "available_tiers", lambda: (frozenset({"text", *parts}), {}))
    monkeypatch.setattr(tiers, "expected_versions", expected)
    monkeypatch.setattr(tiers, "load_embedder", load_embedder)
    monkeypatch.setattr(tiers, "default_scorer", fail)


def table(turn: str = "t") -> pl.DataFrame:
    row = {"messages": json.dumps(MESSAGES), "query": "Q", "answer": "One. Two.", "turn": turn}
    return pl.DataFrame([row])


def test_what_nothing_records_is_not_checked_and_what_agrees_is_taken() -> None:
    for learned in ({}, {"rules": {}}, {"rules": OWN, "weights": OWN}):
        assert settle("auto", learned) == (("text", "embedding", "state", "likelihood"), [])


def test_a_revision_that_was_not_recorded_is_not_compared() -> None:
    recorded = {"scorer": {"model": "smollm2-135m", "revision": None}}
    assert settle("all", {"rules": recorded})[0] == ("text", "embedding", "state", "likelihood")


@pytest.mark.parametrize("what", ["rules", "weights"])
def test_another_scorer_is_left_out_by_auto_and_refused_by_name(what: str) -> None:
    chosen, notes = settle("auto", {"rules": OWN, "weights": OWN, what: OTHER})
    assert chosen == ("text", "embedding")
    assert len(notes) == 1
    assert notes[0].startswith("no state and likelihood signals: scorer revision is")
    assert f"the {what} were learned with 'another'" in notes[0]
    told = f"--tiers all: no state signals: scorer revision is {OWN['scorer']['revision']!r}"
    with pytest.raises(SelfplayError, match=told) as caught:
        settle("all", {what: OTHER})
    assert "\n" not in str(caught.value)
    assert settle("text+embedding", {what: OTHER})[0] == ("text", "embedding")


def test_models_are_loaded_once_and_only_when_something_is_missing() -> None:
    measurer = Measurer(CHOICES["text+embedding"], {})
    assert Embedder.loaded == 0
    first = measurer(table())
    measurer(table("u"))
    assert Embedder.loaded == 1
    again = Measurer(CHOICES["text+embedding"], {})
    assert again(first).equals(first)
    assert Embedder.loaded == 1


def test_signals_of_other_tiers_are_taken_away_and_what_nobody_reads_is_not_measured() -> None:
    carried = table().with_columns(pl.lit(0.5).alias(name) for names in measure.SIGNALS.values() for name in names)
    found = Measurer(CHOICES["text+embedding"], {})(carried)
    assert set(measure.EMBEDDING_SIGNALS) <= set(found.columns)
    assert not {measure.STATE, *measure.LIKELIHOOD_SIGNALS} & set(found.columns)
    assert Measurer(CHOICES["all"], {}, reads={"text"})(table()).columns == table().columns


def test_a_model_that_fails_is_noted_once_or_is_an_error() -> None:
    measurer = Measurer(CHOICES["auto"], {}, optional=True)
    for _ in range(2):
        assert "cos_answer" in measurer(table()).columns
    assert measurer.notes == ["without likelihood signals: out of memory"]
    with pytest.raises(SelfplayError, match="no state and likelihood signals: out of memory"):
        Measurer(CHOICES["all"], {}, layer=3)(table())


def test_the_scorer_of_the_control_measures_no_likelihoods_that_the_weights_do_not_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiers, "default_scorer", lambda model: (FakeScorer(), FakeTemplate()))
    measurer = Measurer(CHOICES["auto"], {"weights": OTHER}, optional=True)
    first = measurer.control(table())
    assert {*first.columns} - {*table().columns} == {*measure.CONTROL_SIGNALS}
    assert not {*measure.LIKELIHOOD_SIGNALS} & {*measurer(first).columns}
    assert len(measurer.notes) == 1
    assert "the weights were learned with 'another'" in measurer.notes[0]


@pytest.fixture
def strangers(tmp_path: Path) -> dict[str, str]:
    """A rule set and weights that were learned with another scorer; and a turn to judge."""
    rules = tmp_path / "rules.json"
    replace(filters.load_rules(), models=OTHER).save(rules)
    shipped = json.loads((Path(rerank.__file__).parent / "default_weights.json").read_text())
    weights = tmp_path / "weights.json"
    weights.write_text(json.dumps({**shipped, "measured_with": OTHER}))
    turns = tmp_path / "turns.jsonl"
    turns.write_text(json.dumps({"messages": MESSAGES, "turn": "why two?"}) + "\n")
    return {"filter": str(rules), "rank": str(weights), "turns": str(turns)}


@pytest.mark.parametrize(("verb", "option"), [("filter", "--rules"), ("rank", "--weights")])
def test_the_verbs_refuse_another_scorer_in_one_line_or_say_what_they_do_without(
    strangers: dict[str, str], verb: str, option: str
) -> None:
    call = [verb, strangers["turns"], option, strangers[verb]]
    refused = CliRunner().invoke(cli, [*call, "--tiers", "all"])
    assert isinstance(refused.exception, SelfplayError)
    assert f"the {option[2:]} were learned with 'another'" in str(refused.exception)
    assert refused.stdout == ""
    done = CliRunner().invoke(cli, call, catch_exceptions=False)
    assert len(done.stdout.splitlines()) == 1
    assert f"without state signals: scorer revision is {OWN['scorer']['revision']!r}" in done.stderr


@pytest.mark.parametrize("option", ["rules", "weights"])
def test_a_run_refuses_another_scorer_or_leaves_the_tier_out(strangers: dict[str, str], option: str) -> None:
    path = strangers["filter" if option == "rules" else "rank"]
    with pytest.raises(SelfplayError, match=f"the {option} were learned with 'another'"):
        judging.configure(judging.Options(**{option: path}, tiers="all"))
    config, notes = judging.configure(judging.Options(**{option: path}))
    assert config.tiers == ("text", "embedding")
    assert len(notes) == 1


def test_what_is_shipped_was_learned_with_one_pair_of_models() -> None:
    assert filters.load_rules().models == OWN
    assert {"embedder", "scorer"} == OWN.keys()


@pytest.mark.parametrize("option", ["rules", "weights"])
def test_a_run_names_a_mistake_in_rules_or_weights(tmp_path: Path, option: str) -> None:
    (tmp_path / "x.json").write_text('{"schema": 0}')
    with pytest.raises(SelfplayError, match=r"x\.json"):
        judging.configure(judging.Options(**{option: str(tmp_path / "x.json")}))
