"""kill -9 at random moments of a real run: after resuming, the dataset equals an undisturbed run's."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "selfplay" / "examples" / "conversations.jsonl"
OPTIONS = ["--n", "2", "--max-tokens", "8", "--limit", "12", "--seed", "5", "--sites-per-batch", "1"]


ROUNDS = ["--until-survivors", "1", "--max-n", "6", "--allow-truncated", "--tiers", "text+embedding"]


def command(folder: Path, more: Sequence[str] = ()) -> list[str]:
    code = "from selfplay.cli import main; main()"
    return [sys.executable, "-c", code, "run", str(EXAMPLES), "-o", str(folder), *OPTIONS, *more]


def run_until_killed(folder: Path, seconds: float, more: Sequence[str] = ()) -> bool:
    """Starts or resumes a run and kills it after `seconds`; True if it was done before."""
    process = subprocess.Popen(
        command(folder, more),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False
    assert process.returncode == 0, errors.decode()
    return True


def turns(folder: Path) -> pl.DataFrame:
    parts = [pl.read_parquet(part) for part in sorted((folder / "turns").glob("*.parquet"))]
    return pl.concat(parts).sort("ordinal", "temperature", "sample")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    folder = tmp_path_factory.mktemp("kill") / "undisturbed"
    began = time.monotonic()
    assert run_until_killed(folder, 900)
    return folder, time.monotonic() - began


def check(undisturbed: tuple[Path, float], folder: Path, kills: int, seed: int, more: Sequence[str] = ()) -> None:
    whole, duration = undisturbed
    moments = random.Random(seed)
    done = False
    for _ in range(kills):
        # A resumed run may be done early; it is then started again and must change nothing.
        done = run_until_killed(folder, moments.uniform(0.05, 1.0) * duration, more) or done
    assert run_until_killed(folder, 900, more)
    assert turns(folder).equals(turns(whole))
    assert (folder / "chosen.jsonl").read_bytes() == (whole / "chosen.jsonl").read_bytes()
    assert pl.read_parquet(folder / "rejected.parquet").equals(pl.read_parquet(whole / "rejected.parquet"))


@pytest.mark.integration
def test_three_kills(undisturbed: tuple[Path, float], tmp_path: Path) -> None:
    check(undisturbed, tmp_path / "run", kills=3, seed=1)


@pytest.mark.integration
def test_three_kills_of_a_run_in_rounds(tmp_path: Path) -> None:
    began = time.monotonic()
    assert run_until_killed(tmp_path / "whole", 900, ROUNDS)
    whole = tmp_path / "whole", time.monotonic() - began
    assert turns(whole[0]).group_by("site_id").len()["len"].n_unique() > 1, "some sites must stop earlier than others"
    check(whole, tmp_path / "run", kills=3, seed=2, more=ROUNDS)


@pytest.mark.trial
@pytest.mark.parametrize("seed", range(20))
def test_a_kill_at_each_of_twenty_moments(undisturbed: tuple[Path, float], tmp_path: Path, seed: int) -> None:
    check(undisturbed, tmp_path / "run", kills=1, seed=seed)
