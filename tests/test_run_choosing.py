"""`run` with k turns per site, diversity across sites and pairs: what is written, again after a kill, and later."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from selfplay import execution, judging
from selfplay.choosing.selection import select
from selfplay.cli import main
from selfplay.config import SampleConfig
from selfplay.core import Candidate, Draw
from selfplay.engines.base import Engine, SampleRequest
from selfplay.pipeline import Judge
from tests.scripted import ScriptedEngine

CONFIG = SampleConfig(source="s", source_hash="h", model="m", temperatures={1.0: 3}, seed=3)
Call = Callable[..., int]


class Alike(ScriptedEngine):
    """Says the same at every site first, then something of its own, then what will be flagged."""

    def candidate(self, request: SampleRequest, draw: Draw, batch: str) -> Candidate:
        own = request.key.replace("#", "x")
        turn = ("Can you tell me more?", f"{own} is what {own} means?", "Thanks!")[draw.sample]
        return Candidate(draw, turn, (1, 2), (-0.5, -0.25), "stop", 3, 0, True)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Calls `run` on eight rows with a judge that knows the three turns; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    row = {"messages": [{"role": "user", "content": "Eggs?"}, {"role": "assistant", "content": "Boil them."}]}
    Path("in.jsonl").write_text("".join(json.dumps({"id": f"c{i}"} | row) + "\n" for i in range(8)))

    @contextmanager
    def stages(job: Any, config: Any, chosen: Any, *_: Any) -> Iterator[tuple[Engine, Judge]]:
        def judge(turns: pl.DataFrame, sites: pl.DataFrame) -> pl.DataFrame:
            sample = pl.col("sample")
            known = turns.with_columns(
                genuine=sample < 2, p_genuine=0.8 - sample / 10, groundedness=0.8 - sample / 10, copy=pl.lit(False),
                rank=sample + 1, label=pl.when(sample < 2).then(pl.lit("follow_up")).otherwise(pl.lit("generic")),
                rule=pl.lit("r"), evidence=pl.lit("e"),
            )  # fmt: skip
            return select(known, k=chosen.select, diversity=chosen.diversity)

        yield Alike(), judge

    monkeypatch.setattr(execution, "stages", stages)
    monkeypatch.setattr(execution, "configure", lambda *_: (CONFIG, None))
    monkeypatch.setattr(execution, "selecting", lambda job, _: judging.configure(job.judging)[0])
    monkeypatch.setattr("filters.estimate.DRAWS", 20)
    monkeypatch.setattr("selfplay.pipeline.FLUSH_SITES", 3)

    def call(*arguments: str) -> int:
        given = ["selfplay", "run", "in.jsonl", "-o", "out", "--tiers", "text", *arguments]
        monkeypatch.setattr("sys.argv", given)
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    return call


def lines_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("out", name).read_text().splitlines()]


def said(rows: list[dict[str, Any]]) -> list[str]:
    return [row["completion"][0]["content"] for row in rows]


def test_uniform_choices_are_told_and_diversity_mends_them(run: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert set(said(lines_of("chosen.jsonl"))) == {"Can you tell me more?"}
    shown = " ".join(capsys.readouterr().err.split())
    assert "--diversity 0.7 restores it" in shown
    assert not Path("out/pairs.jsonl").exists()
    assert run("--diversity", "0.7") == 2, "another choice is another run"
    assert run("--diversity", "0.7", "--fresh") == 0
    found = said(lines_of("chosen.jsonl"))
    assert found.count("Can you tell me more?") == 1
    assert "restores it" not in capsys.readouterr().err
    reasons = pl.read_parquet("out/rejected.parquet")["rejected_for"].value_counts().rows()
    assert dict(reasons) == {"redundant": 7, "lower_rank": 1, "flagged": 8}


def test_k_turns_a_site_have_ids_of_their_own_the_best_first(run: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--select", "2") == 0
    rows = lines_of("chosen.jsonl")
    assert [row["id"] for row in rows[:2]] == ["c0#1/1/0", "c0#1/1/1"]
    assert len({row["id"] for row in rows}) == 16
    assert "selected 16 at 8 sites" in " ".join(capsys.readouterr().err.split())


def test_pairs_of_a_finished_run_can_be_asked_for_later_and_are_kept_up(
    run: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-q") == 0
    assert run("-q", "--pairs", "flagged") == 0
    pairs = lines_of("pairs.jsonl")
    assert [(row["site_id"], row["rejected"][0]["content"]) for row in pairs] == [
        (f"c{i}#1", "Thanks!") for i in range(8)
    ]
    Path("out/pairs.jsonl").unlink()
    assert run("-q") == 0
    assert lines_of("pairs.jsonl") == pairs, "a run that was asked once goes on writing them"
    assert run("--pairs", "both") == 0
    assert "pairs for preference training 16" in " ".join(capsys.readouterr().err.split())
    assert len(lines_of("pairs.jsonl")) == 16
    assert run("-q", "--fresh") == 0
    assert not Path("out/pairs.jsonl").exists()


def test_the_choice_across_sites_outlives_a_kill(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("-q", "--diversity", "0.7") == 0
    expected = lines_of("chosen.jsonl")

    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(execution.dataset, "write_dataset", die)
        with pytest.raises(Killed):
            run("-q", "--diversity", "0.7", "--fresh")
    assert run("-q", "--diversity", "0.7") == 0
    assert lines_of("chosen.jsonl") == expected
