"""`selfplay evaluate` with rules really learned in every fold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from selfplay.cli import cli
from tests.judged_turns import learn_roughly, write_judged

pytestmark = pytest.mark.integration


def evaluated(folder: Path, out: Path) -> pl.DataFrame:
    given = [str(folder), "-o", str(out), "--tiers", "text", "--folds", "3", "--seed", "1", "--no-left-out"]
    done = CliRunner().invoke(cli, ["evaluate", *given])
    assert done.exit_code == 0, done.output
    return pl.read_parquet(out / "turns.parquet")


def test_what_is_said_of_a_conversation_changes_the_others_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn_roughly(monkeypatch)
    (tmp_path / "a").mkdir()
    shutil.copytree(write_judged(tmp_path / "a"), tmp_path / "b")
    turns = tmp_path / "b" / "judged_turns.jsonl"
    rows = [json.loads(line) for line in turns.read_text().splitlines()]
    changed = [row | ({"label": "off_topic", "groundedness": 0} if row["context"] == "c7" else {}) for row in rows]
    turns.write_text("".join(json.dumps(row) + "\n" for row in changed))
    before, after = (evaluated(tmp_path / name, tmp_path / f"out-{name}") for name in "ab")
    fold = before.filter(pl.col("context") == "c7")["fold"][0]
    columns = ["id", "genuine", "p_genuine", "groundedness", "rank"]
    for same, rows_of in ((True, pl.col("fold") == fold), (False, pl.col("fold") != fold)):
        one, other = (each.filter(rows_of).select(columns).sort("id") for each in (before, after))
        assert one.equals(other) is same
