"""`--until-survivors`: who is drawn at again, and the same result after any interruption."""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from selfplay import adaptive
from selfplay.config import SampleConfig, draws
from selfplay.core import Conversation, Origin, Site
from selfplay.errors import EngineError
from selfplay.inputs.quarantine import Quarantine
from selfplay.interrupt import Interrupt
from selfplay.pipeline import Judging, Session
from selfplay.progress import Silent
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
            adaptive.recover(run)
            judging = Judging(run, judge)
            try:
                session = adaptive.sample_until(
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
