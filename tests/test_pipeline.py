"""A run folder: nothing lost, nothing twice, the same after any interruption."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from selfplay import plan
from selfplay.config import SampleConfig, draws
from selfplay.core import Candidate, Conversation, Draw, Origin, Site
from selfplay.engines.base import SampleRequest
from selfplay.errors import EngineError, SelfplayError, TooManyBadRows, UsageError
from selfplay.inputs.quarantine import Quarantine
from selfplay.interrupt import Interrupt
from selfplay.pipeline import Judging, Session, sample
from selfplay.progress import Silent
from selfplay.runs import Run
from tests.scripted import ScriptedEngine

CONFIG = SampleConfig(source="s", source_hash="h", model="m", temperatures={0.7: 2, 1.0: 2}, seed=3)


def site(number: int) -> Site:
    messages = ({"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number}"})
    return Site(number, Conversation(f"c{number}", messages, Origin("f", number + 1), {"kept": number}), 2)


SITES = [site(number) for number in range(10)]


def start(folder: Path, engine: ScriptedEngine, config: SampleConfig = CONFIG, sites: list[Site] = SITES) -> Session:
    run = Run(folder, config.as_json(), None)
    try:
        with Quarantine(folder / "quarantine.jsonl") as quarantine, Interrupt() as interrupt:
            run.save(status="running")
            return sample(run, engine, config, None, None, iter(sites), quarantine, interrupt, Silent())
    finally:
        run.close()


def sampled(folder: Path) -> pl.DataFrame:
    parts = sorted((folder / "sampled").glob("part-*.parquet"))
    return pl.concat([pl.read_parquet(part) for part in parts]).sort("ordinal", "temperature", "sample")


def test_every_site_gets_its_draws_once(tmp_path: Path) -> None:
    start(tmp_path, ScriptedEngine())
    table = sampled(tmp_path)
    assert table.select("site_id", "temperature", "sample").rows() == [
        (f"c{i}#1", t, s) for i in range(10) for t in (0.7, 1.0) for s in range(2)
    ]
    expected = [draw.seed for i in range(10) for draw in draws(CONFIG, f"c{i}#1")]
    assert table["seed"].to_list() == expected
    assert len(set(expected)) == 40


@pytest.mark.parametrize("group", [1, 3, 4])
@pytest.mark.parametrize("dies_at", ["c0#1", "c4#1", "c9#1"])
def test_resume_equals_an_undisturbed_run(tmp_path: Path, group: int, dies_at: str) -> None:
    whole = tmp_path / "whole"
    start(whole, ScriptedEngine(group))

    def die(key: str) -> None:
        if key == dies_at:
            raise MemoryError

    broken = tmp_path / "broken"
    with pytest.raises(MemoryError):
        start(broken, ScriptedEngine(group, die))
    start(broken, ScriptedEngine(group))
    assert sampled(broken).equals(sampled(whole))


@pytest.mark.parametrize("dies_at", ["c4#1", "c9#1"])
def test_a_site_that_cannot_be_rendered_changes_nobodys_batch_on_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    really = plan.render

    def render(site: Site, *arguments: Any) -> SampleRequest:
        if site.ordinal == 1:
            raise SelfplayError("over the model's context")
        return really(site, *arguments)

    monkeypatch.setattr(plan, "render", render)
    start(tmp_path / "whole", ScriptedEngine(4))
    leave = EngineError("gone")

    def die(key: str) -> None:
        if key == dies_at:
            raise leave

    assert start(tmp_path / "broken", ScriptedEngine(4, die)).error is leave
    start(tmp_path / "broken", ScriptedEngine(4))
    assert sampled(tmp_path / "broken").equals(sampled(tmp_path / "whole"))


def test_resume_asks_only_for_what_is_missing(tmp_path: Path) -> None:
    def leave(key: str) -> None:
        if key == "c6#1":
            raise EngineError("gone")

    session = start(tmp_path, ScriptedEngine(script=leave))
    assert isinstance(session.error, EngineError)
    assert sampled(tmp_path)["site_id"].n_unique() == 6
    engine = ScriptedEngine()
    start(tmp_path, engine)
    assert engine.asked == [f"c{i}#1" for i in range(6, 10)]


@pytest.mark.parametrize("group", [1, 4])
def test_failed_sites_are_tried_again_and_the_rest_kept(tmp_path: Path, group: int) -> None:
    def fail(key: str) -> str | None:
        return "no luck" if key in ("c2#1", "c8#1") else None

    session = start(tmp_path, ScriptedEngine(group, fail))
    assert session.failed == {"c2#1": "no luck", "c8#1": "no luck"}
    before = sampled(tmp_path)
    assert before["site_id"].n_unique() == 8
    engine = ScriptedEngine(group)
    assert start(tmp_path, engine).sites == 2
    whole = tmp_path / "whole"
    start(whole, ScriptedEngine(group))
    assert sampled(tmp_path).equals(sampled(whole))


def test_one_signal_finishes_what_is_in_flight(tmp_path: Path) -> None:
    def interrupt(key: str) -> None:
        if key == "c4#1":
            os.kill(os.getpid(), signal.SIGINT)

    session = start(tmp_path, ScriptedEngine(4, interrupt))
    assert session.interrupted
    assert sampled(tmp_path)["site_id"].n_unique() == 8, "the group in flight (4 to 7) is finished, the next not begun"


def test_two_signals_stop_now_and_keep_whole_groups(tmp_path: Path) -> None:
    def interrupt(key: str) -> None:
        if key in ("c4#1", "c5#1"):
            os.kill(os.getpid(), signal.SIGINT)

    assert start(tmp_path, ScriptedEngine(4, interrupt)).interrupted
    assert sampled(tmp_path)["site_id"].n_unique() == 4
    start(tmp_path, ScriptedEngine(4))
    whole = tmp_path / "whole"
    start(whole, ScriptedEngine(4))
    assert sampled(tmp_path).equals(sampled(whole))


def test_another_configuration_is_refused_with_the_difference(tmp_path: Path) -> None:
    start(tmp_path, ScriptedEngine())
    other = SampleConfig(source="s", source_hash="h", model="m", temperatures={0.7: 2, 1.0: 3}, seed=4)
    with pytest.raises(UsageError, match=r"seed: 3 -> 4; temperatures.1: 2 -> 3"):
        start(tmp_path, ScriptedEngine(), other)


def test_a_start_that_sampled_nothing_binds_nobody(tmp_path: Path) -> None:
    Run(tmp_path, {"model": "misspelt"}, None).close()
    Run(tmp_path, {"model": "right"}, None).close()
    assert json.loads((tmp_path / "run.json").read_bytes())["sample"] == {"model": "right"}


def test_a_folder_with_other_things_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="holds no run"):
        Run(tmp_path, {}, None, fresh=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_fresh_removes_the_earlier_run_and_nothing_else(tmp_path: Path) -> None:
    start(tmp_path, ScriptedEngine())
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    (tmp_path / "data").mkdir()
    (tmp_path / "mine.txt").write_text("keep")
    Run(tmp_path, {"other": 1}, None, fresh=True).close()
    assert not list((tmp_path / "sampled").iterdir())
    assert (tmp_path / "mine.txt").exists()
    assert (tmp_path / "data").exists()
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep"


def test_another_programs_run_json_is_not_taken_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"mine": 1}')
    for fresh in (False, True):
        with pytest.raises(UsageError, match="not of a selfplay run"):
            Run(tmp_path, {}, None, fresh=fresh)
    assert [p.read_text() for p in tmp_path.iterdir()] == ['{"mine": 1}']


def test_a_folder_that_cannot_be_made_is_a_users_mistake() -> None:
    with pytest.raises(UsageError, match="cannot make the folder /proc/none/x"):
        Run(Path("/proc/none/x"), {}, None)


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    first = Run(tmp_path, {}, None)
    with pytest.raises(UsageError, match="another process"):
        Run(tmp_path, {}, None)
    first.close()
    Run(tmp_path, {}, None).close()


def test_a_part_whose_sites_were_written_alone_is_done_again(tmp_path: Path) -> None:
    start(tmp_path, ScriptedEngine(4))
    last = max((tmp_path / "sampled").iterdir())
    lost = set(pl.read_parquet(last)["site_id"])
    last.unlink()
    engine = ScriptedEngine(4)
    start(tmp_path, engine)
    assert set(engine.asked) == lost
    assert sampled(tmp_path)["site_id"].n_unique() == 10


def test_parts_sampled_but_not_judged_are_judged_on_resume(tmp_path: Path) -> None:
    start(tmp_path, ScriptedEngine(4))
    run = Run(tmp_path, CONFIG.as_json(), None)
    assert list(run.unfinished()) == [0, 1, 2]
    run.write("turns", 1, run.read("sampled", 1))
    judged: list[str] = []

    def judge(turns: pl.DataFrame, sites: pl.DataFrame) -> pl.DataFrame:
        assert set(turns["site_id"]) == set(sites["site_id"])
        judged.extend(sites["site_id"])
        return turns.with_columns(label=pl.lit("x"))

    Judging(run, judge).finish(Interrupt())
    assert judged == [f"c{i}#1" for i in (0, 1, 2, 3, 8, 9)]
    assert list(run.unfinished()) == []
    run.close()


def test_what_judging_raises_ends_the_run_and_keeps_the_samples(tmp_path: Path) -> None:
    start(tmp_path, ScriptedEngine(4))
    run = Run(tmp_path, CONFIG.as_json(), None)

    def judge(turns: pl.DataFrame, sites: pl.DataFrame) -> pl.DataFrame:
        raise EngineError("the scorer is gone")

    with pytest.raises(EngineError, match="the scorer is gone"):
        Judging(run, judge).finish(Interrupt())
    assert list(run.unfinished()) == [0, 1, 2]
    run.close()


def test_leaving_begins_no_further_part(tmp_path: Path) -> None:
    start(tmp_path, ScriptedEngine(4))
    run = Run(tmp_path, CONFIG.as_json(), None)
    begun, free = threading.Event(), threading.Event()

    def judge(turns: pl.DataFrame, sites: pl.DataFrame) -> pl.DataFrame:
        begun.set()
        assert free.wait(10)
        return turns

    judging = Judging(run, judge)
    assert begun.wait(10)
    judging.leave()
    free.set()
    judging.finish(Interrupt())
    assert list(run.unfinished()) == [1, 2], "the part in work is finished, the others are for the next start"
    run.close()


def test_too_many_bad_rows_end_the_run_after_what_was_read_is_written(tmp_path: Path) -> None:
    def sites() -> object:
        yield from SITES[:5]
        raise TooManyBadRows("3 of 8 rows are bad")

    session = start(tmp_path, ScriptedEngine(), sites=sites())  # type: ignore[arg-type]
    assert isinstance(session.error, TooManyBadRows)
    assert sampled(tmp_path)["site_id"].n_unique() == 5


def test_run_json_is_never_half_written(tmp_path: Path) -> None:
    run = Run(tmp_path, {"a": 1}, None)
    run.save(status="running")
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(TypeError):
        run.save(bad=object())
    assert (tmp_path / "run.json").read_bytes() == before
    assert json.loads(before)["status"] == "running"
    run.close()


@pytest.mark.parametrize("kind", ["sites", "sampled"])
@pytest.mark.parametrize("number", [0, 2])
def test_a_deleted_part_is_done_again_and_nothing_twice(tmp_path: Path, kind: str, number: int) -> None:
    start(tmp_path, ScriptedEngine(4))
    before = sampled(tmp_path)
    run = Run(tmp_path, CONFIG.as_json(), None)
    Judging(run, lambda turns, sites: turns).finish(Interrupt())
    run.path(kind, number).unlink()
    run.close()
    start(tmp_path, ScriptedEngine(4))
    run = Run(tmp_path, CONFIG.as_json(), None)
    Judging(run, lambda turns, sites: turns).finish(Interrupt())
    judged = pl.concat([run.read("turns", number) for number in run.parts("turns")])
    run.close()
    assert judged.sort("ordinal", "temperature", "sample").equals(before)
    assert len(list((tmp_path / "sites").iterdir())) == len(list((tmp_path / "turns").iterdir())) == 3


@pytest.mark.parametrize("kept", [0, 10, 1000])
def test_a_truncated_part_is_one_line_that_says_how_to_mend_it(tmp_path: Path, kept: int) -> None:
    start(tmp_path, ScriptedEngine(4))
    part = tmp_path / "sampled" / "part-000001.parquet"
    part.write_bytes(part.read_bytes()[:kept])
    with pytest.raises(SelfplayError, match=r"part-000001.parquet is damaged .*; delete it"):
        start(tmp_path, ScriptedEngine(4))
    part.unlink()
    assert start(tmp_path, ScriptedEngine(4)).sites == 4


def test_a_kill_while_the_first_run_json_is_written_leaves_a_folder_that_can_be_used(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".run.json.4711.tmp").write_text('{"format"')
    assert start(tmp_path, ScriptedEngine()).sites == 10
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_kill_while_starting_over_leaves_a_folder_that_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(tmp_path, ScriptedEngine())
    (tmp_path / "notes.txt").write_text("mine")

    def die(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Run, "save", die)
        with pytest.raises(MemoryError):
            Run(tmp_path, CONFIG.as_json(), None, fresh=True)
    assert start(tmp_path, ScriptedEngine()).sites == 10
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"format": 2, "sample": {}}', "another version of selfplay .format 2"),
        ('{"format": 1, "sample": null, "select": null}', "cannot be read"),
        ("{", "cannot be read"),
    ],
)
def test_a_run_json_that_is_not_ours_is_refused_and_left_as_it_is(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match=told):
        Run(tmp_path, CONFIG.as_json(), None)
    assert (tmp_path / "run.json").read_text() == text
    Run(tmp_path, CONFIG.as_json(), None, fresh=True).close()


def test_a_full_disk_is_one_line_and_leaves_no_half_part(tmp_path: Path) -> None:
    start(tmp_path, ScriptedEngine(4))
    run = Run(tmp_path, CONFIG.as_json(), None)
    table = run.read("sampled", 0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(SelfplayError, match=r"cannot write .*part-000000"):
            run.write("turns", 0, table)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "turns").iterdir())
    run.close()


def test_a_signal_while_only_judging_is_left_begins_no_further_part(tmp_path: Path) -> None:
    start(tmp_path, ScriptedEngine(4))
    run = Run(tmp_path, CONFIG.as_json(), None)
    interrupt, waited = Interrupt(), threading.Event()

    def judge(turns: pl.DataFrame, sites: pl.DataFrame) -> pl.DataFrame:
        interrupt.asked = True
        waited.wait(0.5)
        return turns

    Judging(run, judge).finish(interrupt)
    assert list(run.unfinished()) == [1, 2]
    run.close()


def test_a_signal_while_stderr_is_being_written_to_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy:
        def write(self, text: str) -> None:
            raise RuntimeError("reentrant call")

    with Interrupt() as interrupt:
        with monkeypatch.context() as patched:
            patched.setattr("sys.stderr", Busy())
            os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.asked


def test_half_a_surrogate_pair_from_a_server_does_not_end_the_run(tmp_path: Path) -> None:
    class Broken(ScriptedEngine):
        def candidate(self, request: SampleRequest, draw: Draw, batch: str) -> Candidate:
            return replace(super().candidate(request, draw, batch), turn="a\ud83d")

    start(tmp_path, Broken())
    assert set(sampled(tmp_path)["turn"]) == {"a?"}
