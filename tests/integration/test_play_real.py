"""`selfplay play` with a real model, killed and resumed, and over a real SGLang server."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from filters import rules
from selfplay.engines.sglang_server import Server

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "selfplay" / "examples" / "conversations.jsonl"
SHORT = ("--max-tokens", 8, "--assistant-max-tokens", 16, "--allow-cut-answers", "--allow-truncated", "--tiers", "text")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations that go on with a short question: long enough that a prefix cache has something to hold."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = sorted((json.loads(line) for line in EXAMPLES.read_text().splitlines()), key=lambda row: len(str(row)))
    for row in rows:
        row["messages"].append({"role": "user", "content": "What would you do first?"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rules that find no fault, so that dialogues of a tiny model last."""
    shipped = json.loads((Path(rules.__file__).parent / "default_rules.json").read_bytes())
    for each in shipped["sets"]["text"]["rules"]:
        each["enabled"] = False
    path = tmp_path_factory.mktemp("rules") / "lenient.json"
    path.write_text(json.dumps(shipped))
    return path


def start(out: Path, *options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from selfplay.cli import main; main()", "play", "-o", out, *SHORT, *options]
    return subprocess.Popen(
        list(map(str, command)), stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )


def play(out: Path, *options: object) -> str:
    process = start(out, *options)
    _, told = process.communicate(timeout=900)
    assert process.returncode == 0, told
    print(told)
    return told


def kill_after(seconds: float, out: Path, *options: object) -> bool:
    """Starts or resumes a play and kills it; False if it was done before."""
    process = start(out, *options)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    assert process.returncode == 0
    return False


def dialogues(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "conversations.jsonl").read_text().splitlines()]


def turns(out: Path) -> pl.DataFrame:
    """All candidates of all rounds; what a cache held depends on what a process did before."""
    parts = pl.concat([pl.read_parquet(path) for path in sorted(out.glob("round-*/turns/*.parquet"))])
    return parts.drop("cached_tokens").sort("site_id", "temperature", "sample")


def check(out: Path, prompts: int, rounds: int, n: int) -> list[dict[str, Any]]:
    """What holds for any finished play; returns its rounds as `run.json` has them."""
    found = dialogues(out)
    assert len(found) == prompts
    for row in found:
        asked = [turn["content"] for turn in row["messages"]].index("What would you do first?")
        roles = [message["role"] for message in row["messages"][asked:]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert len(row["user_turns"]) == len(roles) // 2 - 1
        assert (row["ending"] == "rounds") == (len(row["user_turns"]) == rounds)
        assert row["domain"]
    summary = json.loads((out / "run.json").read_bytes())["summary"]
    assert summary["conversations"] == prompts
    for number, row in enumerate(summary["rounds"][:-1], 1):
        sampled = pl.read_parquet(out / f"round-{number:02d}" / "turns" / "*.parquet")
        assert len(sampled) == row["candidates"] == n * row["answered"]
    return list(summary["rounds"])


def killed_and_resumed(folder: Path, kills: int, seed: int, options: Sequence[object]) -> Path:
    """Plays twice, once undisturbed and once killed; the outcome must be the same. Returns the folder of the first."""
    began = time.monotonic()
    play(folder / "whole", *options)
    duration = time.monotonic() - began
    moments = random.Random(seed)
    for _ in range(kills):
        kill_after(moments.uniform(0.3, 0.9) * duration, folder / "killed", *options)
    play(folder / "killed", *options)
    assert dialogues(folder / "killed") == dialogues(folder / "whole")
    assert turns(folder / "killed").equals(turns(folder / "whole"))
    return folder / "whole"


def test_a_killed_play_ends_the_same(tmp_path: Path, lenient: Path, prompts: Path) -> None:
    options = (prompts, "--rules", lenient, "--rounds", 2, "--n", 2, "--limit", 2, "--sites-per-batch", 1)
    out = killed_and_resumed(tmp_path, kills=1, seed=3, options=options)
    rounds = check(out, prompts=2, rounds=2, n=2)
    assert any(row["ending"] == "rounds" for row in dialogues(out))
    assert rounds[-1]["cached_share_answers"] > 0.3, "the prompts of earlier rounds are still in the cache"


@pytest.mark.trial
def test_twenty_prompts_and_three_rounds_killed_twice(tmp_path: Path, lenient: Path, prompts: Path) -> None:
    options = (prompts, "--rules", lenient, "--rounds", 3, "--n", 4, "--limit", 20)
    out = killed_and_resumed(tmp_path, kills=2, seed=7, options=options)
    check(out, prompts=20, rounds=3, n=4)


@pytest.mark.sglang
def test_play_over_a_server_finds_earlier_rounds_in_its_cache(
    sglang_server: Server, smollm2: str, lenient: Path, prompts: Path, tmp_path: Path
) -> None:
    server = ("--engine", "sglang", "--base-url", sglang_server.url, "--tokenizer", smollm2)
    options = (prompts, *server, "--rules", lenient, "--n", 2, "--limit", 3)
    play(tmp_path / "out", *options, "--rounds", 1)
    play(tmp_path / "out", *options, "--rounds", 2)  # goes on from what is there
    rounds = check(tmp_path / "out", prompts=3, rounds=2, n=2)
    assert rounds[1]["cached_share_answers"] > 0.5
    assert rounds[1]["cached_share_turns"] > 0.8


@pytest.mark.sglang
def test_a_model_on_a_server_answers_a_user_in_this_process(
    sglang_server: Server, smollm2: str, lenient: Path, prompts: Path, tmp_path: Path
) -> None:
    server = ("--engine", "sglang", "--base-url", sglang_server.url, "--tokenizer", smollm2)
    other = ("--user-engine", "transformers", "--user-model", "smollm2-135m")
    play(tmp_path / "out", prompts, *server, *other, "--rules", lenient, "--rounds", 1, "--n", 2, "--limit", 2)
    check(tmp_path / "out", prompts=2, rounds=1, n=2)
    engines = [json.loads((tmp_path / "out" / name / "run.json").read_bytes())["engine"]["engine"]
               for name in ("answers-01", "round-01", "answers-02")]  # fmt: skip
    assert engines == ["sglang", "transformers", "sglang"]


@pytest.mark.trial
@pytest.mark.sglang
def test_twenty_prompts_and_three_rounds_over_a_server(
    sglang_server: Server, smollm2: str, lenient: Path, prompts: Path, tmp_path: Path
) -> None:
    server = ("--engine", "sglang", "--base-url", sglang_server.url, "--tokenizer", smollm2)
    options = (prompts, *server, "--rules", lenient, "--rounds", 3, "--n", 4, "--limit", 20)
    assert kill_after(40, tmp_path / "out", *options)
    play(tmp_path / "out", *options)
    check(tmp_path / "out", prompts=20, rounds=3, n=4)
