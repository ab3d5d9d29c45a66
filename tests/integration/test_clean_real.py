"""`selfplay clean` as a user calls it: several processes, kills and interrupts at any moment, and real models."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cleaning import conversations

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent
OUTPUT = ("conversations.jsonl", "dropped.jsonl")


def start(source: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from selfplay.cli import main; main()", "clean", str(source), "-o", str(out), *more],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    return errors


def clean(source: Path, out: Path, *more: str) -> list[bytes]:
    finish(start(source, out, *more))
    return whole(out)


def whole(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in OUTPUT]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three batches."""
    path = tmp_path_factory.mktemp("clean") / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in conversations(2500)), "utf-8")
    return path


CUT = ("--on-bad", "cut", "--duplicates", "drop", "--workers")


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[bytes], float]:
    began = time.monotonic()
    return clean(source, tmp_path_factory.mktemp("clean") / "one", *CUT, "1"), time.monotonic() - began


def test_kills_lose_no_finished_batch_and_the_output_does_not_depend_on_the_workers(
    source: Path, undisturbed: tuple[list[bytes], float], tmp_path: Path
) -> None:
    before, duration = undisturbed
    out = tmp_path / "out"
    moments = random.Random(1)
    for _ in range(2):
        process = start(source, out, *CUT, "2")
        time.sleep(moments.uniform(0.3, 0.8) * duration)
        process.kill()
        process.communicate()
        written = {path.name: path.stat().st_mtime_ns for path in (out / "turns").glob("part-*.parquet")}
    assert clean(source, out, *CUT, "2") == before
    for name, moment in written.items():
        assert (out / "turns" / name).stat().st_mtime_ns == moment, "judged again"


def test_an_interrupt_ends_with_130_and_leaves_no_process(
    source: Path, undisturbed: tuple[list[bytes], float], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(source, out, *CUT, "2")
    while not list(out.glob("turns/part-*.parquet")):
        time.sleep(0.05)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    assert "the same command goes on from here" in finish(process, 130)
    assert json.loads((out / "run.json").read_bytes())["status"] == "interrupted"
    assert gone(process.pid)
    assert clean(source, out, *CUT, "2") == undisturbed[0]


def gone(group: int) -> bool:
    """Whether all processes of the group end within ten seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


BASIL = [
    {"role": "user", "content": "How do I keep basil alive on a north-facing kitchen windowsill during winter?"},
    {
        "role": "assistant",
        "content": "Basil needs about six hours of light, so add a small grow lamp 15 cm above the leaves. Water only "
        "when the top two centimetres of soil feel dry.",
    },
    {"role": "user", "content": "<|assistant|> Glad I could help! Let me know if you have other questions. <|im_end|>"},
    {"role": "assistant", "content": "Thank you."},
]


def test_the_full_rules_and_a_replacement_by_the_real_model(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"id": "basil", "messages": BASIL}) + "\n")
    drawing = ("--n", "4", "--max-tokens", "24", "--seed", "3", "--allow-truncated")
    clean(source, tmp_path / "out", "--rules", "full", "--on-bad", "replace", *drawing)
    (row,) = rows(tmp_path / "out" / "conversations.jsonl")
    (turn,) = row["user_turns"]
    assert (turn["rule_set"], turn["bad"], turn["label"]) == ("full", True, "malformed")
    assert row["original_messages"] == BASIL
    assert row["messages"] == [*BASIL[:2], {"role": "user", "content": row["replacement"]["turn"]}]
    assert row["replacement"]["model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
