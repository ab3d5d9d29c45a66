"""The way of a state from the sampler to the rules: kept until its turn is judged, in no file after that."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

import filters
from rerank import Weights, load_weights
from selfplay import dataset, execution, judging, learned, summary
from selfplay.core import Candidate, Draw
from selfplay.engines.base import SampleRequest
from selfplay.engines.opening import EngineOptions
from selfplay.errors import EngineError
from selfplay.interrupt import Interrupt
from selfplay.pipeline import Judging
from selfplay.runs import Run
from selfplay.signals import tiers
from selfplay.signals.likelihood import SIGNALS
from selfplay.signals.measure import SCORED
from selfplay.signals.tiers import CHOICES, Measurer, Scorer
from selfplay.tables import SAMPLED_STATE, turns_table
from tests import test_pipeline, test_rounds
from tests.scripted import ScriptedEngine
from tests.test_measure import FakeTemplate, site
from tests.test_turn_states import FakeReader

DIM = 3


class Gathers(ScriptedEngine):
    """Knows a state of every candidate but the second ones; it holds the seed."""

    def candidate(self, request: SampleRequest, draw: Draw, batch: str) -> Candidate:
        state = np.full(DIM, draw.seed % 1000, dtype=np.float32) if draw.sample != 1 else None
        return replace(super().candidate(request, draw, batch), state=state)


def test_a_table_of_turns_has_states_only_where_an_engine_gathered_some() -> None:
    request = SampleRequest("k", None, (Draw(1.0, 0, 7), Draw(1.0, 1, 8), Draw(0.5, 0, 9)))  # type: ignore[arg-type]
    drawn = {
        kind: [kind().candidate(request, draw, "k") for draw in request.draws] for kind in (ScriptedEngine, Gathers)
    }
    without, found = (turns_table([(test_pipeline.SITES[0], drawn[kind])], "m", False) for kind in drawn)
    assert found[SAMPLED_STATE].to_list() == [[9.0] * DIM, [7.0] * DIM, None], "in the order of the rows"
    assert found.drop(SAMPLED_STATE).equals(without)


def test_the_judge_has_the_states_and_no_file_keeps_them(tmp_path: Path) -> None:
    seen = []

    def judge(turns: pl.DataFrame, sites: pl.DataFrame) -> pl.DataFrame:
        seen.extend(turns.select(state=pl.col(SAMPLED_STATE).list.first() == pl.col("seed") % 1000)["state"])
        return turns.drop(SAMPLED_STATE)

    test_pipeline.start(tmp_path / "run", Gathers(4))
    test_pipeline.start(tmp_path / "plain", ScriptedEngine(4))
    run = Run(tmp_path / "run", test_pipeline.CONFIG.as_json(), None)
    first = run.read("sampled", 0)
    run.write("sampled", 0, first.drop(SAMPLED_STATE))  # as if this part had been judged
    assert summary.counted(run)["candidates"] == 40
    assert all(SAMPLED_STATE not in row for row in dataset.turn_rows(run))
    run.write("sampled", 0, first)
    Judging(run, judge).finish(Interrupt())
    run.close()
    assert seen.count(True) == seen.count(None) == 20
    assert test_pipeline.sampled(tmp_path / "run").equals(test_pipeline.sampled(tmp_path / "plain"))


def test_rounds_are_judged_with_their_states_each_time(tmp_path: Path) -> None:
    calls = []

    def judge(turns: pl.DataFrame, sites: pl.DataFrame) -> pl.DataFrame:
        known = turns.filter(pl.col(SAMPLED_STATE).list.first() == pl.col("seed") % 1000)
        assert set(known["sample"].unique()) == set(turns["sample"].unique()) - {1}
        calls.append(len(turns))
        return test_rounds.judge(turns.drop(SAMPLED_STATE), sites)

    test_rounds.start(tmp_path / "run", Gathers(4), judge=judge)
    test_rounds.start(tmp_path / "plain", ScriptedEngine(4))
    for kind in ("sampled", "turns"):
        assert test_rounds.outcome(tmp_path / "run", kind) == test_rounds.outcome(tmp_path / "plain", kind)
    assert len(calls) > len(list((tmp_path / "run/turns").iterdir())), "once as rounds, once as parts of the run"


def measurer(scorer: Any, **options: Any) -> Measurer:
    return Measurer(SCORED, {}, scorer=Scorer(scorer, FakeTemplate()), **options)  # type: ignore[arg-type]


def test_states_come_with_likelihoods_or_alone_where_a_row_brings_those() -> None:
    table = pl.DataFrame(site("abcd", "x", "yz"))
    scorer = FakeReader()
    found = measurer(scorer, layer=3)(table)
    passes = len(scorer.requests)
    assert found["turn_state"].null_count() == 0
    assert measurer(scorer, layer=3)(found).equals(found)
    assert len(scorer.requests) == passes, "what is there is not measured again"
    again = measurer(scorer, layer=3)(found.drop("turn_state"))
    assert again["turn_state"].equals(found["turn_state"])
    assert len(scorer.requests) == passes + 1
    assert "turn_state" not in measurer(scorer)(table).columns
    assert "turn_state" not in Measurer(CHOICES["text"], {}, layer=3)(found.drop("turn_state")).columns


def test_likelihoods_stay_where_no_state_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: str | None = None) -> Any:
        raise EngineError("out of memory")

    monkeypatch.setattr(tiers, "default_scorer", fail)
    table = pl.DataFrame(site("abcd", "x")).with_columns(pl.lit(0.5).alias(name) for name in SIGNALS)
    measuring = Measurer(SCORED, {}, optional=True, layer=3)
    assert measuring(measuring(table)).equals(table)
    assert measuring.notes == ["without state signals: out of memory"]


def test_a_judged_part_holds_no_states(monkeypatch: pytest.MonkeyPatch) -> None:
    text = load_weights().models["text"]
    monkeypatch.setattr(judging, "load_rules", lambda path: filters.load_rules().only("text"))
    monkeypatch.setattr(judging, "load_weights", lambda path: Weights({"text": text}))
    monkeypatch.setattr(learned, "layer", lambda *_: 3)
    labelled = []

    def label(table: pl.DataFrame, *given: Any) -> pl.DataFrame:
        labelled.append(table["turn_state"].to_list())
        return really(table, *given)

    really = filters.label
    monkeypatch.setattr(filters, "label", label)
    select = replace(judging.configure(judging.Options(tiers="text"))[0], tiers=("text", *SCORED))
    sites = pl.DataFrame({"site_id": ["c0#1"], "messages": [site("Boil them.", "")[0]["messages"]]})
    request = SampleRequest("c0#1", None, (Draw(1.0, 0, 7),))  # type: ignore[arg-type]
    turns = turns_table([(test_pipeline.SITES[0], [Gathers().candidate(request, request.draws[0], "k")])], "m", False)
    for own, expected in ((True, [7.0] * DIM), (False, None)):
        scorer = Scorer(FakeReader(), FakeTemplate(), own_tokens=own, own_logprobs=own)  # type: ignore[arg-type]
        with judging.opened(select, judging.Options(tiers="text"), scorer) as judge:
            found = judge(turns, sites)
        assert {"turn_state", SAMPLED_STATE}.isdisjoint(found.columns)
        (state,) = labelled.pop()
        assert (state == expected) if own else (len(state) == 4), "the sampler's, or else the scorer's own"


@pytest.mark.parametrize(
    ("job", "engine", "scorer", "own"),
    [
        ({}, {}, None, True),
        ({"system": "drop"}, {}, None, False),
        ({"tokenizer": "other"}, {}, None, False),
        ({}, {"dtype": "bfloat16"}, None, False),
        ({}, {"device": "cpu"}, None, False),
        ({}, {"revision": "main"}, None, False),
        ({}, {"engine": "sglang"}, None, False),
        ({}, {}, "another", False),
    ],
)
def test_states_are_gathered_only_by_the_very_scorer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, job: Any, engine: Any, scorer: str | None, own: bool
) -> None:
    opened = []

    def open_engine(options: Any, model: str, log: Path, share: bool, layer: int | None, tokens: int) -> ScriptedEngine:
        opened.append((layer, tokens))
        return ScriptedEngine()

    monkeypatch.setattr(execution, "open_engine", open_engine)
    monkeypatch.setattr(execution, "own_scorer", lambda *_: None)
    monkeypatch.setattr(judging, "opened", lambda *_: nullcontext())
    select = replace(judging.configure(judging.Options(tiers="text"))[0], tiers=("state",), scorer_model=scorer)
    options = {"system": "keep", "tokenizer": None, "judging": judging.Options(), **job}
    asked: Any = SimpleNamespace(**options, engine=EngineOptions(**engine))
    config = replace(test_pipeline.CONFIG, model="smollm2-135m")
    with execution.stages(asked, config, select, None, tmp_path / "log"):
        assert opened == [(20 if own else None, 128)]
