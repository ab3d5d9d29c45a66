"""A whole job with an engine without a model: exit codes, what `run.json` says, what is written."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from selfplay import execution, judging
from selfplay.cli import main
from selfplay.config import SampleConfig, SelectConfig
from selfplay.engines.base import Engine
from selfplay.pipeline import Judge
from tests.scripted import ScriptedEngine

CONFIG = SampleConfig(source="s", source_hash="h", model="m", temperatures={0.7: 1, 1.0: 1}, seed=3)
Script = Callable[[str], "str | None"]
Call = Callable[..., int]


@pytest.fixture
def selfplay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Calls a verb on three good rows, and on bad ones; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    select, _ = judging.configure(judging.Options(tiers="text"))

    def call(
        verb: str,
        *arguments: str,
        script: Script = lambda key: None,
        bad: int = 0,
        source: str = "in.jsonl",
        config: SampleConfig = CONFIG,
    ) -> int:
        row = {"messages": [{"role": "user", "content": "Eggs?"}, {"role": "assistant", "content": "Boil them."}]}
        good = [json.dumps({"id": f"c{i}", "mine": 10**30 + i} | row) for i in range(3)]
        Path("in.jsonl").write_text("\n".join(good + ["{"] * bad) + "\n")

        @contextmanager
        def stages(
            job: Any, config: Any, select: SelectConfig | None, *_: Any
        ) -> Iterator[tuple[Engine, Judge | None]]:
            if select is None:
                yield ScriptedEngine(script=script), None
                return
            with judging.opened(select, judging.Options(tiers="text")) as judge:
                yield ScriptedEngine(script=script), judge

        monkeypatch.setattr(execution, "stages", stages)
        monkeypatch.setattr(execution, "configure", lambda *_: (config, None))
        monkeypatch.setattr(execution, "selecting", lambda job, _: select if job.judging else None)
        monkeypatch.setattr("sys.argv", ["selfplay", verb, source, "-o", "out", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    return call


def status() -> str:
    return str(json.loads(Path("out/run.json").read_bytes())["status"])


def test_sample_then_run_in_one_folder_keeps_everything(selfplay: Call) -> None:
    asked: list[str] = []
    assert selfplay("sample", script=asked.append) == 0
    assert selfplay("run", script=asked.append) == 0
    assert asked == ["c0#1", "c1#1", "c2#1"]
    chosen = [json.loads(line) for line in Path("out/chosen.jsonl").read_text().splitlines()]
    assert [row["mine"] - 10**30 for row in chosen] == [int(row["conversation_id"][1:]) for row in chosen]
    assert len(chosen) + len(pl.read_parquet("out/rejected.parquet")) == 6


def test_an_engine_that_fails_at_every_site_ends_with_1_and_they_are_tried_again(
    selfplay: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    assert selfplay("run", "--show", "2", script=lambda key: "no luck") == 1
    assert "3 sites failed" in capsys.readouterr().err
    assert len(Path("out/failed.jsonl").read_text().splitlines()) == 3
    assert selfplay("run") == 0
    assert not Path("out/failed.jsonl").exists()


@pytest.mark.parametrize("limit", ["1", "30%"])
def test_too_many_bad_rows_end_with_3_and_the_record_says_failed(selfplay: Call, limit: str) -> None:
    assert selfplay("run", "--max-bad", limit, bad=2) == 3
    assert status() == "failed"
    assert not Path("out/chosen.jsonl").exists()
    assert selfplay("run", "--max-bad", "50%", bad=2) == 0
    assert status() == "done"
    assert len(Path("out/quarantine.jsonl").read_text().splitlines()) == 2


def test_after_a_kill_the_table_counts_what_is_there(selfplay: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert selfplay("sample") == 0
    record = json.loads(Path("out/run.json").read_bytes())
    Path("out/run.json").write_text(json.dumps(record | {"sessions": [], "status": "running"}))
    capsys.readouterr()
    assert selfplay("sample") == 0
    assert "candidates 6" in " ".join(capsys.readouterr().err.split())


def test_what_the_system_refuses_is_one_line(
    selfplay: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "out/chosen.jsonl")

    monkeypatch.setattr("selfplay.dataset.write_lines", full)
    assert selfplay("run", "-q") == 1
    assert "selfplay: out/chosen.jsonl: No space left on device" in capsys.readouterr().err


def test_a_second_signal_leaves_without_waiting_for_threads(selfplay: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    class Left(Exception):
        pass

    def insist(*_: object) -> None:
        raise KeyboardInterrupt

    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(execution, "finish", insist)
    monkeypatch.setattr("selfplay.cli.leave_now", leave)
    with pytest.raises(Left, match="130"):
        selfplay("run")


def test_a_folder_in_the_folder_that_is_read_is_refused(selfplay: Call, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data").mkdir()
    assert selfplay("run", "-o", "data/out", source="data") == 2
    assert "data/out lies in the input data" in capsys.readouterr().err
    assert not Path("data/out").exists()


def test_samples_of_two_dtypes_do_not_mix(
    selfplay: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ScriptedEngine, "describe", lambda self: {"dtype": "float32"})
    assert selfplay("run") == 0
    monkeypatch.setattr(ScriptedEngine, "describe", lambda self: {"dtype": "bfloat16"})
    assert selfplay("run") == 2
    assert "dtype: 'float32' -> 'bfloat16'" in capsys.readouterr().err
    assert selfplay("run", "--fresh") == 0


def test_temperatures_that_would_share_seeds_are_one_given_twice(
    selfplay: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    assert selfplay("run", "--temperature", "0.7", "--temperature", "0.70000001") == 2
    assert "--temperature 0.7 is given twice" in capsys.readouterr().err


def test_sites_are_given_up_after_the_budget_and_the_table_says_so(
    selfplay: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    rounds = replace(CONFIG, until_survivors=3, max_n=5)
    assert selfplay("run", config=rounds) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "candidates 15 candidates per site 5.0 (5 to 5)" in said
    assert "sites done, by rounds 3 after 3" in said
    assert "sites given up" in said
    assert "estimated genuine, first round" in said
    summary = json.loads(Path("out/run.json").read_bytes())["summary"]
    assert summary["estimated_genuine"]["before"]["turns"] == 6, "later rounds are of hard sites only"
    turns = pl.read_parquet("out/turns")
    assert summary["rounds"]["rounds"] == {"3": 3}
    fit = turns.filter(~pl.col("rejected_for").is_in(["flagged", "truncated"]).fill_null(False))
    few = 3 - fit.group_by("site_id").len().filter(pl.col("len") >= 3).height
    assert summary["rounds"]["given_up"] == few
    ranks = turns.group_by("site_id").agg(pl.col("rank").sort())["rank"].to_list()
    assert ranks == [[1, 2, 3, 4, 5]] * 3, "ranked over all rounds together"
    assert selfplay("run", config=rounds, script=lambda key: pytest.fail("sampled again")) == 0


@pytest.mark.parametrize(("config", "candidates"), [(CONFIG, 4), (replace(CONFIG, until_survivors=3, max_n=5), 10)])
def test_a_preview_draws_as_the_run_would_and_keeps_nothing(
    selfplay: Call, capsys: pytest.CaptureFixture[str], config: SampleConfig, candidates: int
) -> None:
    assert selfplay("run", "--preview", "2", config=config) == 0
    shown = capsys.readouterr().out
    assert shown.count("p_genuine") == candidates
    assert "c0#1" in shown
    assert "c1#1" in shown
    assert [path.name for path in Path().iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--max-n", "9"), "--max-n limits the rounds of --until-survivors"),
        (("--until-survivors", "1", "--n", "8", "--max-n", "7"), "--max-n 7 is less than the 8 candidates"),
        (("--until-survivors", "9", "--n", "2", "--max-n", "8"), "--max-n 8 is less than --until-survivors 9"),
        (("--until-survivors", "1", "--temperature", "0"), "at temperature 0 every draw is the same"),
    ],
)
def test_rounds_that_make_no_sense_are_refused(
    selfplay: Call, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    assert selfplay("run", *arguments) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("written", [False, True])
def test_dying_at_each_file_that_is_written_loses_nothing_and_does_nothing_twice(
    selfplay: Call, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    class Killed(BaseException):
        pass

    def outcome() -> tuple[Any, ...]:
        turns = pl.concat([pl.read_parquet(part) for part in sorted(Path("out/turns").iterdir())])
        return Path("out/chosen.jsonl").read_bytes(), pl.read_parquet("out/rejected.parquet").rows(), turns.rows()

    monkeypatch.setattr("selfplay.pipeline.FLUSH_SITES", 1)
    monkeypatch.setattr("filters.estimate.DRAWS", 20)
    assert selfplay("run", "-q") == 0
    whole, really = outcome(), os.replace
    for moment in range(2 if written else 1, 100, 2):
        shutil.rmtree("out")
        calls = itertools.count(1)

        def replace(source: Path, place: Path, moment: int = moment, calls: Iterator[int] = calls) -> None:
            # Two threads write: each call takes a number of its own, so that no moment is passed over.
            mortal = next(calls) == moment
            if written or not mortal:
                really(source, place)
            if mortal:
                raise Killed

        monkeypatch.setattr(os, "replace", replace)
        try:
            died = selfplay("run", "-q") != 0
        except Killed:
            died = True
        monkeypatch.setattr(os, "replace", really)
        assert selfplay("run", "-q") == 0
        assert outcome() == whole, f"after dying at write {moment}"
        if not died:
            break
    assert moment > 12, "run.json, three parts of three kinds, the dataset"
