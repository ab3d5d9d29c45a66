"""The scripts in selfplay/examples run as they are, and with an engine without a model."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import selfplay
from selfplay import execution, judging
from selfplay.core import Candidate, Draw
from selfplay.engines.base import SampleRequest
from selfplay.playing import play
from tests.families import FAMILIES
from tests.scripted import ScriptedEngine

EXAMPLES = Path(selfplay.__file__).parent / "examples"
SCRIPTS = ("best_of_n", "clean_and_export", "play_and_report")
PROMPTS = [{"id": "egg", "prompt": "How long do I boil an egg?"}]


class Cook(ScriptedEngine):
    def candidate(self, request: SampleRequest, draw: Draw, batch: str) -> Candidate:
        answers = request.messages[-1]["role"] == "user"
        turn = (
            "Simmer it for nine minutes, then cool it in ice water."
            if answers
            else "Nine minutes of simmering sounds long, does the ice water stop it at once?"
        )
        return Candidate(draw, turn, (1, 2), (-0.5, -0.25), "stop", 3, 0, True)


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Callable[..., None]]:
    """The `main` of a script, in a folder where `model` names a template; an engine without a model answers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("filters.estimate.DRAWS", 20)
    next(family for family in FAMILIES if family.name == "smollm2").tokenizer(tmp_path / "model")

    @contextmanager
    def stages(job: Any, config: Any, select: Any, *_: Any) -> Iterator[Any]:
        if select is None:
            yield Cook(), None
            return
        with judging.opened(select, judging.Options(tiers="text")) as judge:
            yield Cook(), judge

    monkeypatch.setattr(execution, "stages", stages)
    monkeypatch.setattr(play, "open_engine", lambda *_, **__: Cook())
    return lambda name: runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]  # type: ignore[no-any-return]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def script(name: str, folder: Path) -> str:
    """What it prints, run as people run it."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")], capture_output=True, text=True, cwd=folder, timeout=300,
        env=os.environ | {"PYTHONPATH": str(EXAMPLES.parent.parent)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_of_them_are_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*SCRIPTS}


def test_best_of_n(main: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    data = [
        {"id": str(n), "messages": [{"role": "user", "content": f"Egg {n}?"},
                                    {"role": "assistant", "content": "Simmer it nine minutes, then ice water."}]}
        for n in range(20)
    ]  # fmt: skip
    main("best_of_n")(data, Path("out"), {"model": "model", "n": 2}, tiers="text")
    exported = [rows(path) for path in sorted(Path("out/sft/prompt-completion").iterdir())]
    assert sum(map(len, exported)) == 20
    assert "ice water stop it at once" in capsys.readouterr().out


def test_clean_and_export(tmp_path: Path) -> None:
    said = script("clean_and_export", tmp_path)
    assert "24 of 24 conversations stay" in said
    out = tmp_path / "cleaned-and-exported"
    assert all("label" in row for row in rows(out / "kto" / "train.jsonl"))
    assert all(row["chosen"] != row["rejected"] for row in rows(out / "dpo" / "train.jsonl"))
    assert (out / "cleaned" / "conversations.jsonl").exists()


def test_play_and_report(main: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    main("play_and_report")(PROMPTS, Path("out"), {"model": "model", "rounds": 1, "n": 2, "tiers": "text"})
    said = capsys.readouterr().out
    assert "--- egg ended: rounds" in said
    assert said.count("user: Nine minutes of simmering") == 1
    assert "<html" in Path("out/report.html").read_text()


@pytest.mark.integration
def test_best_of_n_with_the_embedded_models(tmp_path: Path) -> None:
    said = script("best_of_n", tmp_path)
    assert "sites ranked with text+wording+embedding+state" in said
    chosen = [row for path in (tmp_path / "best-of-n" / "sft").glob("prompt-completion/*.jsonl") for row in rows(path)]
    assert chosen
    assert all(row["model"] == "HuggingFaceTB/SmolLM2-135M-Instruct" and row["completion"] for row in chosen)
