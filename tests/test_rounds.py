"""`--until-survivors`: who is drawn at again, and the same result after any interruption."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.config import SampleConfig, draws, round_of
from selfplay.core import Candidate, Conversation, Draw, Origin, Sampling, Site
from selfplay.engines.base import SampleRequest, SampleResult
from selfplay.errors import EngineError, SelfplayError, TooManyBadRows, UsageError
from selfplay.inputs.quarantine import Quarantine
from selfplay.interrupt import Interrupt
from selfplay.pipeline import Judging, Session
from selfplay.progress import Silent
from selfplay.rounds import sampling
from selfplay.rounds.parts import recover
from selfplay.runs import Run
from tests.scripted import ScriptedEngine

CONFIG = SampleConfig(
    source="s", source_hash="h", model="m", temperatures={0.7: 2, 1.0: 2}, seed=3, until_survivors=1, max_n=14
)


def site(number: int) -> Site:
    messages = ({"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number}"})
    return Site(number, Conversation(f"c{number}", messages, Origin("f", number + 1)), 2)


SITES = [site(number) for number in range(40)]
LUCKY = {number: random.Random(number).choice([0, 0, 0, 1, 2, 5, 6, 99]) for number in range(40)}
"""The first sample number at which a site's turns survive; 99 is beyond every round."""
NOTHING_WRONG = pl.lit(None, pl.String).alias("rejected_for")
STRIDE = 7
"""Of the moments at which to die, the test takes every seventh; all of them pass, but cost a minute."""


def judge(turns: pl.DataFrame, sites: pl.DataFrame) -> pl.DataFrame:
    assert set(turns["site_id"]) == set(sites["site_id"])
    good = [sample >= LUCKY[ordinal] for ordinal, sample in turns.select("ordinal", "sample").iter_rows()]
    best = pl.int_range(pl.len()).over("site_id") + 1
    return turns.with_columns(pl.Series("rejected_for", [None if g else "flagged" for g in good], pl.String), rank=best)


def start(
    folder: Path, engine: ScriptedEngine, config: SampleConfig = CONFIG, sites: Any = None, judge: Any = judge
) -> Session:
    run = Run(folder, config.as_json(), None)
    try:
        with Quarantine(folder / "quarantine.jsonl") as quarantine, Interrupt() as interrupt:
            recover(run)
            judging = Judging(run, judge)
            try:
                session = sampling.sample_until(
                    run, engine, config, None, None, iter(sites or SITES), quarantine, interrupt, Silent(), judging
                )
            except BaseException:
                judging.leave(wait=True)
                raise
            if session.interrupted:
                judging.leave()
            judging.finish(interrupt)
            return session
    finally:
        run.close()


def outcome(folder: Path, kind: str = "turns") -> list[tuple[Any, ...]]:
    parts = sorted((folder / kind).glob("part-*.parquet"))
    return [row for part in parts for row in pl.read_parquet(part).rows()]


def counts(folder: Path) -> dict[int, int]:
    parts = sorted((folder / "turns").glob("part-*.parquet"))
    table = pl.concat([pl.read_parquet(part) for part in parts])
    return dict(table.group_by("ordinal").len().sort("ordinal").iter_rows())


@pytest.mark.parametrize("group", [1, 4])
def test_sites_are_drawn_at_until_enough_survive_or_the_budget_is_spent(tmp_path: Path, group: int) -> None:
    start(tmp_path, ScriptedEngine(group))
    # Four at a time; the fourth round has only the two that are left of 14.
    expected = {number: {0: 4, 1: 4, 2: 8, 5: 12, 6: 14, 99: 14}[LUCKY[number]] for number in range(40)}
    assert counts(tmp_path) == expected
    assert set(expected.values()) == {4, 8, 12, 14}
    assert not (tmp_path / "rounds").exists()
    for kind in ("sampled", "turns"):
        ordinals = [row[1] for row in outcome(tmp_path, kind)]
        assert ordinals == sorted(ordinals), "written in reading order"


class Killed(BaseException):
    pass


def dying_at(moment: int) -> Any:
    calls = 0

    def script(key: str) -> None:
        nonlocal calls
        calls += 1
        if calls == moment:
            raise Killed

    return script


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("moments", [(1,), (30,), (55,), (20, 20, 20), (7,) * 12])
def test_killed_anywhere_and_started_again_it_ends_the_same(
    tmp_path: Path, group: int, moments: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scripted turn names the batch it was drawn in, so that another batch would show."""
    monkeypatch.setattr(sampling, "COHORT_GROUPS", 3)
    monkeypatch.setattr(sampling, "FLUSH_SITES", 5)
    start(tmp_path / "whole", ScriptedEngine(group))
    for moment in moments:
        with pytest.raises(Killed):
            start(tmp_path / "broken", ScriptedEngine(group, dying_at(moment)))
    start(tmp_path / "broken", ScriptedEngine(group))
    for kind in ("sites", "sampled", "turns"):
        assert outcome(tmp_path / "broken", kind) == outcome(tmp_path / "whole", kind)
    assert not (tmp_path / "broken" / "rounds").exists()


@pytest.mark.parametrize("done", [False, True])
def test_dying_at_files_that_are_written_or_removed_loses_nothing_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    monkeypatch.setattr(sampling, "COHORT_GROUPS", 2)
    monkeypatch.setattr(sampling, "FLUSH_SITES", 4)
    engine, sites = ScriptedEngine(2), SITES[:8]
    start(tmp_path / "whole", engine, sites=sites)
    whole, asked = outcome(tmp_path / "whole"), len(engine.asked)
    really: dict[str, Any] = {"replace": os.replace, "unlink": Path.unlink}
    for moment in range(4 if done else 1, 1000, STRIDE):
        folder = tmp_path / str(moment)
        calls = itertools.count(1)

        def dies(name: str, moment: int = moment, calls: Iterator[int] = calls) -> Any:
            def call(*arguments: Any, **options: Any) -> None:
                # Two threads write parts: each call takes a number of its own, so that no moment is passed over.
                counted = not str(arguments[0]).endswith(".tmp") or name == "replace"
                mortal = counted and next(calls) == moment
                if done or not mortal:
                    really[name](*arguments, **options)
                if mortal:
                    raise Killed

            return call

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", dies("replace"))
            patched.setattr(Path, "unlink", dies("unlink"))
            first, second = ScriptedEngine(2), ScriptedEngine(2)
            try:
                start(folder, first, sites=sites)
                died = False
            except Killed:
                died = True
        start(folder, second, sites=sites)
        assert outcome(folder) == whole, f"after dying at {moment}"
        assert not (folder / "rounds").exists()
        assert len(first.asked) + len(second.asked) <= asked + 2, "no more is lost than the batch in flight"
        shutil.rmtree(folder)
        if not died:
            break
    assert moment > 40, "three parts of three kinds in each of several rounds"


def test_resume_asks_only_for_what_is_missing(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    start(tmp_path / "whole", engine)
    with pytest.raises(Killed):
        start(tmp_path / "broken", ScriptedEngine(4, dying_at(45)))
    again = ScriptedEngine(4)
    start(tmp_path / "broken", again)
    assert len(again.asked) == len(engine.asked) - 44
    last = ScriptedEngine(4)
    start(tmp_path / "broken", last)
    assert last.asked == []


def test_one_signal_finishes_the_batch_in_flight_and_the_next_start_goes_on(tmp_path: Path) -> None:
    engine = ScriptedEngine(4, lambda key: os.kill(os.getpid(), signal.SIGINT) if key == "c9#1" else None)
    session = start(tmp_path, engine)
    assert session.interrupted
    assert engine.asked[-1] == "c11#1"
    start(tmp_path, ScriptedEngine(4))
    start(tmp_path / "whole", ScriptedEngine(4))
    assert outcome(tmp_path) == outcome(tmp_path / "whole")


def test_an_engine_that_goes_away_leaves_its_error_and_the_next_start_goes_on(tmp_path: Path) -> None:
    def leave(key: str) -> None:
        if engine.asked.count(key) == 2:
            raise EngineError("gone")

    engine = ScriptedEngine(4, leave)
    assert isinstance(start(tmp_path, engine).error, EngineError)
    assert start(tmp_path, ScriptedEngine(4)).error is None
    start(tmp_path / "whole", ScriptedEngine(4))
    assert outcome(tmp_path) == outcome(tmp_path / "whole")


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("round", [1, 2])
def test_a_site_that_fails_in_any_round_holds_up_nobody_and_is_tried_again(
    tmp_path: Path, group: int, round: int
) -> None:
    bad = next(number for number, lucky in LUCKY.items() if lucky == 99)

    def fail(key: str) -> str | None:
        return "no luck" if key == f"c{bad}#1" and engine.asked.count(key) == round else None

    engine = ScriptedEngine(group, fail)
    assert start(tmp_path, engine).failed == {f"c{bad}#1": "no luck"}
    assert set(counts(tmp_path)) == set(range(40)) - {bad}
    assert start(tmp_path, ScriptedEngine(group)).failed == {}
    start(tmp_path / "whole", ScriptedEngine(group))
    assert counts(tmp_path) == counts(tmp_path / "whole")
    seeds = [sorted(row[7] for row in outcome(folder)) for folder in (tmp_path, tmp_path / "whole")]
    assert seeds[0] == seeds[1]


def test_turns_that_say_the_same_count_once(tmp_path: Path) -> None:
    class Parrot(ScriptedEngine):
        def candidate(self, request: SampleRequest, draw: Draw, batch: str) -> Candidate:
            turn = super().candidate(request, draw, batch)
            return replace(turn, turn="Why?" + " " * draw.sample)

    start(tmp_path, Parrot(), replace(CONFIG, until_survivors=2), judge=lambda t, s: t.with_columns(NOTHING_WRONG))
    assert set(counts(tmp_path).values()) == {14}


def test_sampling_goes_on_while_a_part_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "COHORT_GROUPS", 2)
    engine = ScriptedEngine(4)

    def slow(turns: pl.DataFrame, sites: pl.DataFrame) -> pl.DataFrame:
        limit = time.monotonic() + 10
        while "c39#1" not in engine.asked:
            assert time.monotonic() < limit, "the engine waits for the judge"
            time.sleep(0.001)
        return judge(turns, sites)

    start(tmp_path, engine, judge=slow)
    assert len(counts(tmp_path)) == 40


@pytest.mark.parametrize("ahead", [3, 100])
def test_an_engine_that_pulls_ahead_is_given_what_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    """As servers do: they take further requests before the first result is read."""

    class Ahead(ScriptedEngine):
        def sample(self, requests: Iterable[SampleRequest], sampling: Sampling) -> Iterator[SampleResult]:
            waiting = iter(requests)
            held = list(itertools.islice(waiting, ahead))
            while held:
                request = held.pop(random.Random(len(held)).randrange(len(held)))
                yield from super().sample([request], sampling)
                held += itertools.islice(waiting, 1)

    monkeypatch.setattr(sampling, "FLUSH_SITES", 5)
    monkeypatch.setattr(sampling, "OPEN_SITES", 12)
    start(tmp_path, Ahead())
    start(tmp_path / "whole", ScriptedEngine())
    assert outcome(tmp_path) == outcome(tmp_path / "whole")


def test_what_judging_raises_ends_the_run_and_the_next_start_goes_on(tmp_path: Path) -> None:
    def broken(turns: pl.DataFrame, sites: pl.DataFrame) -> pl.DataFrame:
        if "c20#1" in set(turns["site_id"]):
            raise SelfplayError("the scorer is gone")
        return judge(turns, sites)

    with pytest.raises(SelfplayError, match="the scorer is gone"):
        start(tmp_path, ScriptedEngine(4), judge=broken)
    start(tmp_path, ScriptedEngine(4))
    start(tmp_path / "whole", ScriptedEngine(4))
    assert outcome(tmp_path) == outcome(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["sites", "sampled", "turns"])
@pytest.mark.parametrize("place", ["rounds", "."])
def test_a_deleted_part_is_made_anew(tmp_path: Path, kind: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "COHORT_GROUPS", 2)
    monkeypatch.setattr(sampling, "FLUSH_SITES", 4)
    few = SITES[:16]
    if place == "rounds":
        with pytest.raises(Killed):
            start(tmp_path, ScriptedEngine(4, dying_at(24)), sites=few)
    else:
        start(tmp_path, ScriptedEngine(4), sites=few)
    parts = sorted((tmp_path / place / kind).glob("*.parquet"))
    assert parts
    parts[0].unlink()
    start(tmp_path, ScriptedEngine(4), sites=few)
    start(tmp_path / "whole", ScriptedEngine(4), sites=few)
    assert sorted(outcome(tmp_path)) == sorted(outcome(tmp_path / "whole"))


def test_too_many_bad_rows_end_the_run_after_what_was_read_is_whole(tmp_path: Path) -> None:
    def sites() -> Iterator[Site]:
        yield from SITES[:5]
        raise TooManyBadRows("3 of 8 rows are bad")

    session = start(tmp_path, ScriptedEngine(), sites=sites())
    assert isinstance(session.error, TooManyBadRows)
    assert set(counts(tmp_path)) == set(range(5))


def test_another_budget_is_another_run(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        start(tmp_path, ScriptedEngine(4, dying_at(10)))
    with pytest.raises(UsageError, match="max_n: 14 -> 20"):
        start(tmp_path, ScriptedEngine(4), replace(CONFIG, max_n=20))


@given(
    st.dictionaries(st.sampled_from([0.0, 0.3, 0.7, 1.0]), st.integers(1, 5), min_size=1).filter(any),
    st.integers(0, 40),
)
def test_rounds_go_on_where_one_long_round_would_and_keep_to_the_budget(
    temperatures: dict[float, int], more: int
) -> None:
    config = replace(CONFIG, temperatures=temperatures, max_n=sum(temperatures.values()) + more)
    drawn = [draws(config, "s#1", number) for number in range(60)]
    every = [draw for number in drawn for draw in number]
    assert len(every) == config.max_n, "the whole budget, and no more"
    longer = draws(replace(config, temperatures={t: n * (60 if t else 1) for t, n in temperatures.items()}), "s#1")
    assert set(every) <= set(longer), "same samples, same seeds"
    assert len(set(every)) == len(every)
    for number, round in enumerate(drawn):
        assert {round_of(config, draw.temperature, draw.sample) for draw in round} <= {number}


def test_a_turn_is_measured_once_and_labelled_anew(tmp_path: Path) -> None:
    measured: list[tuple[Any, ...]] = []

    def measuring(turns: pl.DataFrame, sites: pl.DataFrame) -> pl.DataFrame:
        assert "rejected_for" not in turns.columns, "what an earlier round decided must not stand"
        if "answer_pmi" not in turns.columns:
            measured.extend(turns.select("ordinal", "temperature", "sample").iter_rows())
            turns = turns.with_columns(answer_pmi=pl.col("sample") / 2)
        return judge(turns, sites)

    start(tmp_path, ScriptedEngine(4), judge=measuring)
    table = pl.concat([pl.read_parquet(part) for part in (tmp_path / "turns").iterdir()])
    assert sorted(measured) == sorted(table.select("ordinal", "temperature", "sample").iter_rows())
    assert table["answer_pmi"].to_list() == (table["sample"] / 2).to_list()
