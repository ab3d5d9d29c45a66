"""`selfplay inspect`: right counts, and nothing from a file reaches the terminal raw."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from selfplay.commands.inspect import command, show
from selfplay.errors import TooManyBadRows, UsageError
from selfplay.inputs.inspection import inspect_conversations
from selfplay.inputs.quarantine import Quarantine
from selfplay.terminal import printable

USER = {"role": "user", "content": "Почему?"}
ASSISTANT = {"role": "assistant", "content": "Because."}
HOSTILE = "\x1b[31m[red]evil\x07\u202e"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rows: list[Any] = [
        {"id": "a", "messages": [USER, ASSISTANT, USER, ASSISTANT], HOSTILE: 1},
        {"id": "a", "messages": [{**USER, "content": "Why?"}, ASSISTANT], "lang": "en"},
        {"messages": [{**USER, "content": "どうして空は青いの"}, ASSISTANT]},
        {"messages": [{**USER, "content": "どうして空は青いの"}, ASSISTANT]},
        {"messages": [USER]},
        {"messages": [{"role": HOSTILE, "content": "x"}]},
    ]
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n{broken\n")
    return file


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_counts(path: Path) -> None:
    found = inspect_conversations(str(path), Quarantine())
    assert (found["rows"], found["conversations"], found["bad"]) == (7, 4, 3)
    assert found["bad_by_reason"] == {"assistant never speaks": 1, "unknown role": 1, "broken JSON": 1}
    assert found["sites"] == {"last": 4, "all": 5}
    assert found["roles"] == {"user": 5, "assistant": 5}
    assert found["turns"] == {"min": 2, "median": 2, "max": 4}
    assert found["characters"]["user"] == {"min": 4, "median": 7, "max": 9}
    assert found["scripts"] == {"Japanese": 2, "Cyrillic": 1, "Latin": 1}
    assert found["extra_columns"] == {HOSTILE: 1, "lang": 1}
    assert (found["duplicate_ids"], found["duplicate_conversations"]) == (2, 1)
    assert [problem["line"] for problem in found["first_problems"]] == [5, 6, 7]


def test_json_is_the_same_in_ascii(path: Path) -> None:
    result = run(str(path), "--json")
    assert result.exit_code == 0
    assert result.stdout.isascii()
    assert "\x1b" not in result.stdout
    assert json.loads(result.stdout) == inspect_conversations(str(path), Quarantine())


def test_plain_lines_hold_no_control_characters(path: Path) -> None:
    result = run(str(path))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "conversations: 4" in lines
    assert "problem at line 7: broken JSON: Expecting property name enclosed in double quotes at column 2" in lines
    assert all(line.isprintable() for line in lines)
    assert r"\x1b[31m[red]evil\x07\u202e" in result.stdout


def test_a_terminal_gets_a_table_with_the_file_s_text_escaped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        "rich.console.Console", lambda: Console(file=screen, force_terminal=True, color_system=None, width=100)
    )
    show(inspect_conversations(str(path), Quarantine()))
    text = screen.getvalue()
    for forbidden in ("\x07", "\u202e", "\x1b[31m[red]"):
        assert forbidden not in text
    assert r"\x1b[31m[red]evil\x07\u202e" in text
    assert "first problem of each kind" in text
    assert max(len(line) for line in text.splitlines()) < 130


def test_a_problem_in_a_folder_names_its_file(path: Path) -> None:
    result = run(str(path.parent))
    assert "problem at line 7 of in.jsonl: broken JSON" in result.stdout


def test_max_bad_and_quarantine(path: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.out"
    result = run(str(path), "--quarantine", str(bad), "--max-bad", "10%")
    assert isinstance(result.exception, TooManyBadRows)
    assert "conversations: 4" in result.stdout
    assert len(bad.read_text().splitlines()) == 3
    assert run(str(path), "--max-bad", "3").exit_code == 0


def test_the_input_is_never_overwritten_by_its_quarantine(path: Path) -> None:
    before = path.read_bytes()
    result = run(str(path), "--quarantine", str(path))
    assert isinstance(result.exception, UsageError)
    assert path.read_bytes() == before


def test_nothing_readable_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    program = "from selfplay.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "inspect", str(tmp_path / "none")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"selfplay: {tmp_path / 'none'}: no such file or folder\n"


def test_importing_the_verb_imports_nothing_heavy() -> None:
    program = (
        "import sys, selfplay.commands.inspect; print([m for m in ('numpy', 'polars', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        ("plain äöü 空 🙂", None, "plain äöü 空 🙂"),
        ("a\nb\t\x1b[0m\x9b\u2066\ud800", None, r"a\nb\t\x1b[0m\x9b\u2066\ud800"),
        ("abcdef", 4, "abc…"),
        ("abcd", 4, "abcd"),
        ("\x1b\x1b", 4, r"\x1…"),
    ],
)
def test_printable(text: str, limit: int | None, shown: str) -> None:
    assert printable(text, limit) == shown
