"""The command line as a user meets it: fast, light, one line per mistake."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from selfplay.cli import VERBS, main
from selfplay.engines.opening import as_keywords
from selfplay.errors import UsageError

ROOT = Path(__file__).parent.parent
CODE = "from selfplay.cli import main; main()"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
EXAMPLES = ROOT / "selfplay" / "examples" / "conversations.jsonl"


class Done(NamedTuple):
    """How a call of the command ended."""

    returncode: int
    stdout: str
    stderr: str


Call = Callable[..., Done]


@pytest.fixture
def selfplay(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Calls the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["selfplay", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return Done(int(end.value.code or 0), *capsys.readouterr())

    return call


def test_help_answers_in_under_300_ms() -> None:
    # The best of several, since the machine does other things too; an import too many costs every time.
    times = [1.0]
    while min(times) >= 0.3 and len(times) <= 20:
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", CODE, "--help"], capture_output=True, env=ENVIRONMENT)
        assert done.returncode == 0
        times.append(time.perf_counter() - start)
    assert min(times) < 0.3


def test_help_names_every_verb_and_each_has_an_example(selfplay: Call) -> None:
    text = selfplay("--help").stdout
    for verb in VERBS:
        assert f"  {verb} " in text
        help_text = selfplay(verb, "--help")
        assert help_text.returncode == 0, help_text.stderr
        assert f"Example: selfplay {verb}" in " ".join(help_text.stdout.split()), verb


def test_reading_filtering_and_ranking_text_import_no_torch() -> None:
    code = (
        "import sys, selfplay.cli\n"
        "for name in ('torch', 'transformers', 'sentence_transformers', 'sglang', 'sklearn', 'pyarrow'):\n"
        "    sys.modules[name] = None\n"  # importing one of them now fails
        "sys.argv[1:] = ['filter', 'turns.jsonl', '-o', 'filtered.jsonl', '--tiers', 'text']\n"
        "try:\n    selfplay.cli.main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "sys.argv[1:] = ['rank', 'filtered.jsonl', '-o', 'ranked.jsonl', '--tiers', 'text']\n"
        "selfplay.cli.main()\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(EXAMPLES.with_name("turns.jsonl"), folder)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder,
            env=ENVIRONMENT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in (Path(folder) / "ranked.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert all(
        {"label", "genuine", "p_genuine", "groundedness", "rank", "turn", "messages"} <= row.keys() for row in rows
    )
    assert all(row["p_genuine"] is not None and 0 <= row["groundedness"] <= 1 for row in rows)


MISTAKES = [
    (["run", "missing.jsonl", "-o", "out"], "missing.jsonl", 2),
    (["run", str(EXAMPLES)], "-o", 2),
    (["run", str(EXAMPLES), "-o", "out", "--engine", "sglang"], "--base-url", 2),
    (["run", str(EXAMPLES), "-o", "out", "--engine", "transformers", "--base-url", "http://x"], "--base-url", 2),
    (["run", str(EXAMPLES), "-o", "out", "--chat"], "--chat", 2),
    (["run", str(EXAMPLES), "-o", "out", "--temperature", "hot"], "'hot'", 2),
    (["run", str(EXAMPLES), "-o", "out", "--temperature", "1", "--temperature", "1:2"], "twice", 2),
    (["run", str(EXAMPLES), "-o", "out", "--max-bad", "many"], "many", 2),
    (["run", str(EXAMPLES), "-o", "out", "--model", "./nowhere"], "nowhere", 2),
    (["run", str(EXAMPLES), "-o", "out", "--rules", "none.json"], "none.json", 2),
    (["run", str(EXAMPLES), "-o", str(EXAMPLES)], "is a file", 2),
    (["--config", "none.toml", "run", str(EXAMPLES), "-o", "out"], "none.toml", 2),
    (["walk"], "walk", 2),
]


@pytest.mark.parametrize(("arguments", "named", "code"), MISTAKES, ids=[" ".join(m[0][-2:]) for m in MISTAKES])
def test_a_mistake_is_one_line_and_a_code(arguments: list[str], named: str, code: int, selfplay: Call) -> None:
    done = selfplay(*arguments)
    assert "Traceback" not in done.stderr, done.stderr
    assert named in done.stderr
    assert done.returncode == code, done.stderr
    said = [line for line in done.stderr.splitlines() if line and not line.startswith(("Usage:", "Try "))]
    assert len(said) == 1, done.stderr


def test_what_an_error_quotes_cannot_steer_the_terminal(selfplay: Call) -> None:
    done = selfplay("inspect", "no\x1b[31m\nsuch.jsonl")
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert "no\\x1b[31m\\nsuch.jsonl" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_options_from_a_file_and_flags_override_them(tmp_path: Path, selfplay: Call) -> None:
    (tmp_path / "options.toml").write_text('[inspect]\njson = true\n[run]\nn = 3\ntemperature = ["0.7:4"]\n')
    done = selfplay("--config", "options.toml", "inspect", str(EXAMPLES))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    (tmp_path / "options.toml").write_text("[inspect]\nspeed = 3\n")
    done = selfplay("--config", "options.toml", "inspect", str(EXAMPLES))
    assert done.returncode == 2
    assert "'speed'" in done.stderr
    (tmp_path / "options.toml").write_text("[walk]\nn = 3\n")
    done = selfplay("--config", "options.toml", "inspect", str(EXAMPLES))
    assert done.returncode == 2
    assert "[walk]" in done.stderr


def test_output_piped_into_head_ends_quietly() -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", CODE, "filter", str(EXAMPLES.with_name("turns.jsonl")), "--tiers", "text"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT,
    )  # fmt: skip
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.close()
    assert b"Traceback" not in writer.stderr.read()
    writer.wait()


def test_server_arguments_become_keywords_of_the_engine_in_process() -> None:
    given = ["--tp-size=2", "--dtype=float32", "--sleep-on-idle", "--mem-fraction-static=0.8"]
    assert as_keywords(given) == {"tp_size": 2, "dtype": "float32", "sleep_on_idle": True, "mem_fraction_static": 0.8}
    with pytest.raises(UsageError, match="tp-size 2"):
        as_keywords(["tp-size 2"])


CONVERSATION = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "an answer"}]'


@pytest.mark.parametrize("verb", ["filter", "rank"])
def test_the_input_is_never_written_over(selfplay: Call, tmp_path: Path, verb: str) -> None:
    text = CONVERSATION + ', "turn": "and then?"}\nnot json\n'
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "turns.jsonl").write_text(text)
    (tmp_path / "link.jsonl").symlink_to("data/turns.jsonl")
    for source, out in (("data/turns.jsonl", "data/turns.jsonl"), ("data", "data/turns.jsonl"),
                        ("data/turns.jsonl", "link.jsonl")):  # fmt: skip
        done = selfplay(verb, source, "--tiers", "text", "-o", out)
        assert done.returncode == 2
        assert "-o" in done.stderr
        assert "the input" in done.stderr
    assert (tmp_path / "data" / "turns.jsonl").read_text() == text


def test_bad_rows_and_results_do_not_share_a_file(selfplay: Call, tmp_path: Path) -> None:
    (tmp_path / "turns.jsonl").write_text(CONVERSATION + ', "turn": "and then?"}\n')
    done = selfplay("filter", "turns.jsonl", "--tiers", "text", "-o", "o.jsonl", "--quarantine", "./o.jsonl")
    assert done.returncode == 2
    assert "that is where -o writes" in done.stderr


def test_bad_rows_do_not_go_into_the_folder_that_is_read(selfplay: Call, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "c.jsonl").write_text(CONVERSATION + "}\n")
    done = selfplay("inspect", "data", "--quarantine", "data/c.jsonl")
    assert done.returncode == 2
    assert "lies in the input" in done.stderr
    assert (tmp_path / "data" / "c.jsonl").read_text() == CONVERSATION + "}\n"


def test_a_run_and_its_input_do_not_contain_each_other(selfplay: Call, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "c.jsonl").write_text(CONVERSATION + "}\n")
    inside = selfplay("run", "run/c.jsonl", "-o", "run", "--fresh")
    assert inside.returncode == 2
    assert "lies in the run's folder" in inside.stderr
    around = selfplay("run", "run", "-o", "run/out")
    assert around.returncode == 2
    assert "lies in the input" in around.stderr
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["c.jsonl"]


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("run = 5", "options go into a table [run]"),
        ("[run]\nn = [1, 2]", "n in the config file takes a string or number"),
        ("[run]\nn = 2.7", "'2.7' is not a valid"),
        ("[run]\nn = true", "n in the config file takes a string or number"),
        ("[run]\nfresh = 'no'", "give true or false"),
        ("[run]\ntemperature = ['x']", "not a temperature"),
        ("[run]\ntiers = {a = 1}", "takes a string or number"),
        ("[run]\nconversations = 'c.jsonl'", "no option"),
    ],
)
def test_a_config_of_the_wrong_type_is_one_line(selfplay: Call, tmp_path: Path, toml: str, says: str) -> None:
    (tmp_path / "c.toml").write_text(toml)
    done = selfplay("--config", "c.toml", "run", "nothing.jsonl", "-o", "d")
    assert done.returncode == 2
    assert says in done.stderr


def test_a_config_may_give_one_value_where_several_go(selfplay: Call, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[run]\ntemperature = 0.5\nbase-url = 'http://127.0.0.1:9'\nfresh = false")
    done = selfplay("--config", "c.toml", "run", "nothing.jsonl", "-o", "d")
    assert "--base-url goes with --engine" in done.stderr


def test_a_disk_that_is_full_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(CONVERSATION + "}\n")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", CODE, "inspect", str(tmp_path / "c.jsonl")],
            stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "selfplay: No space left on device\n")


def test_an_empty_model_name_is_refused(selfplay: Call, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(CONVERSATION + "}\n")
    done = selfplay("run", "c.jsonl", "-o", "d", "--model", "")
    assert done.returncode == 2
    assert "--model is empty" in done.stderr


def test_train_finds_out_at_once_that_it_cannot_write(selfplay: Call, tmp_path: Path) -> None:
    judged = ROOT / "filters" / "judged"
    done = selfplay("train", str(judged), "--rules", "missing/rules.json")
    assert done.returncode == 2
    assert "missing/rules.json: cannot be written" in done.stderr
