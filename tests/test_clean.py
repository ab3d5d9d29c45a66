"""The verb `clean`: what stays, what goes, that nothing is lost, resuming, and mistakes in one line."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from selfplay import execution, judging
from selfplay.cleaning import clean, workers
from selfplay.cli import cli
from selfplay.config import SampleConfig
from selfplay.core import Candidate, Draw
from selfplay.engines.base import SampleRequest
from selfplay.errors import SelfplayError, TooManyBadRows, UsageError
from tests.scripted import ScriptedEngine

QUESTION = "How do I keep basil alive on a north-facing kitchen windowsill during winter?"
ANSWER = (
    "Basil needs about six hours of light, so add a small grow lamp 15 cm above the leaves. Water only when the top "
    "two centimetres of soil feel dry, and pinch off flowers so that the stems stay bushy."
)
GOOD = "15 cm seems close, won't a lamp that near scorch the leaves?"
SECOND = "An LED lamp stays cool enough; raise it to 25 cm if the leaves curl."
TOKEN = "Which lamp should I buy? <|im_end|>"


def said(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(contents)]


CONVERSATIONS: dict[str, list[dict[str, str]]] = {
    "fine": said(QUESTION, ANSWER, GOOD, SECOND),
    "late": said(
        QUESTION, ANSWER, GOOD, SECOND, TOKEN, "Any LED lamp of 10 watts will do.", "Thanks for that tip!", "!"
    ),
    "early": said(QUESTION, ANSWER, TOKEN, SECOND),
    "short": said("Is rye bread done at 96 degrees inside?", "Yes, between 96 and 98 degrees."),
    "opened": [{"role": "assistant", "content": "Hello, what can I do for you?"}, *said("<|assistant|>", "Pardon?")],
}
TURN_KEYS = ["index", "label", "genuine", "p_genuine", "rule", "evidence", "rule_set", "bad"]


def write(path: Path, conversations: dict[str, Any] | None = None) -> Path:
    rows = [
        {"id": name, "source": "here", "messages": messages, "kept": {"a": [1, None]}}
        for name, messages in (conversations or CONVERSATIONS).items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl")


def invoke(*args: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["clean", *map(str, args)], input=stdin, standalone_mode=False)


def run(*args: object) -> Result:
    result = invoke(*args, "--workers", 1)
    assert (result.exit_code, result.return_value) == (0, 0), (result.output, result.exception)
    return result


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def outputs(folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    kept, dropped = (read(folder / name) for name in ("conversations.jsonl", "dropped.jsonl"))
    return {row["id"]: row for row in kept}, {row["id"]: row for row in dropped}


def test_flagging_keeps_all_and_says_of_each_turn_what_it_is(source: Path, tmp_path: Path) -> None:
    result = run(source, "-o", tmp_path / "out")
    kept, dropped = outputs(tmp_path / "out")
    assert list(kept) == list(CONVERSATIONS)
    assert not dropped
    for name, row in kept.items():
        assert row["messages"] == CONVERSATIONS[name]
        assert (row["source"], row["kept"]) == ("here", {"a": [1, None]})
        assert "original_messages" not in row
    turns = {
        name: [(turn["index"], turn["label"], turn["bad"]) for turn in row["user_turns"]] for name, row in kept.items()
    }
    assert turns["fine"] == [(2, "follow_up", False)]
    assert turns["late"][:2] == [(2, "follow_up", False), (4, "malformed", True)]
    assert [index for index, _, _ in turns["late"]] == [2, 4, 6]
    assert turns["short"] == []
    assert turns["opened"] == [(1, "malformed", True)]
    assert list(kept["late"]["user_turns"][1]) == TURN_KEYS
    assert "<|im_end|>" in kept["late"]["user_turns"][1]["evidence"]
    record = json.loads((tmp_path / "out" / "run.json").read_bytes())
    assert (record["verb"], record["status"]) == ("clean", "done")
    assert "misjudge some real ones" in result.stderr
    assert "malformed" in result.stderr


@pytest.mark.parametrize(
    ("on_bad", "lengths", "dropped"),
    [
        ("drop-conversation", {"fine": 4, "short": 2}, {"late": "bad turn", "early": "bad turn", "opened": "bad turn"}),
        ("cut", {"fine": 4, "late": 4, "early": 2, "short": 2}, {"opened": "nothing left"}),
    ],
)
def test_dropping_and_cutting(
    source: Path, tmp_path: Path, on_bad: str, lengths: dict[str, int], dropped: dict[str, str]
) -> None:
    before = source.read_bytes()
    result = run(source, "-o", tmp_path / "out", "--on-bad", on_bad)
    kept, gone = outputs(tmp_path / "out")
    assert {name: len(row["messages"]) for name, row in kept.items()} == lengths
    assert {name: row["dropped_for"].split(":")[0] for name, row in gone.items()} == dropped
    for name, row in kept.items():
        assert row["messages"] == CONVERSATIONS[name][: lengths[name]]
        assert row.get("original_messages", row["messages"]) == CONVERSATIONS[name]
        assert ("original_messages" in row) == (lengths[name] < len(CONVERSATIONS[name]))
    for name, row in gone.items():
        assert row["messages"] == CONVERSATIONS[name]
        assert row["kept"] == {"a": [1, None]}
    assert source.read_bytes() == before
    summary = json.loads((tmp_path / "out" / "run.json").read_bytes())["summary"]
    assert summary["conversations"]["kept"] == len(lengths)
    stays = [
        turn["label"] for row in kept.values() for turn in row["user_turns"] if turn["index"] < len(row["messages"])
    ]
    for label, (_, after) in summary["labels"]["here"].items():
        assert after == stays.count(label)
    assert "3 → 0" in result.stderr


def test_what_is_bad_can_be_said(source: Path, tmp_path: Path) -> None:
    run(source, "-o", tmp_path / "a", "--bad", "none", "--on-bad", "drop-conversation")
    assert list(outputs(tmp_path / "a")[0]) == list(CONVERSATIONS)
    run(source, "-o", tmp_path / "b", "--bad", "none", "--keep-above", "1", "--on-bad", "drop-conversation")
    assert list(outputs(tmp_path / "b")[0]) == ["short"]
    run(source, "-o", tmp_path / "c", "--bad", "follow_up, generic", "--on-bad", "drop-conversation")
    assert set(outputs(tmp_path / "c")[1]) == {"fine", "late"}


SHAPES = {
    "sharegpt.jsonl": lambda name, messages: {
        "id": name,
        "conversations": [{"from": "human" if m["role"] == "user" else "gpt", "value": m["content"]} for m in messages],
    },
    "pairs.jsonl.gz": lambda name, messages: {"id": name, "prompt": messages[:-1], "completion": messages[-1:]},
    "rows.parquet": lambda name, messages: {"id": name, "messages": messages},
}


@pytest.mark.parametrize("name", SHAPES)
def test_all_shapes_and_formats(tmp_path: Path, name: str) -> None:
    rows = [SHAPES[name](each, CONVERSATIONS[each]) for each in ("fine", "late", "short")]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if name.endswith(".parquet"):
        pl.DataFrame(rows).write_parquet(tmp_path / name)
    else:
        (gzip.open if name.endswith(".gz") else open)(tmp_path / name, "wt").write(text)
    run(tmp_path / name, "-o", tmp_path / "out", "--on-bad", "cut")
    kept, _ = outputs(tmp_path / "out")
    assert {each: len(row["messages"]) for each, row in kept.items()} == {"fine": 4, "late": 4, "short": 2}
    assert kept["late"]["original_messages"] == CONVERSATIONS["late"]


def test_stdin_and_columns_that_have_our_names(tmp_path: Path) -> None:
    row = {"messages": CONVERSATIONS["fine"], "user_turns": "mine", "dropped_for": "mine too"}
    result = invoke("-", "-o", tmp_path / "out", "--workers", 1, stdin=json.dumps(row) + "\n")
    assert result.exit_code == 0, result.exception
    (kept,) = read(tmp_path / "out" / "conversations.jsonl")
    assert (kept["input_user_turns"], kept["input_dropped_for"]) == ("mine", "mine too")
    assert len(kept["user_turns"]) == 1


def test_bad_rows_go_to_quarantine_and_too_many_end_it(source: Path, tmp_path: Path) -> None:
    with source.open("a") as file:
        file.write('{"messages": 3}\n')
    result = run(source, "-o", tmp_path / "out")
    assert len(read(tmp_path / "out" / "quarantine.jsonl")) == 1
    assert "1 of 6" in result.stderr
    assert len(outputs(tmp_path / "out")[0]) == 5
    result = invoke(source, "-o", tmp_path / "other", "--workers", 1, "--max-bad", "0")
    assert isinstance(result.exception, TooManyBadRows)
    assert not (tmp_path / "other" / "conversations.jsonl").exists()
    assert json.loads((tmp_path / "other" / "run.json").read_bytes())["status"] == "failed"


COPY = said(QUESTION, ANSWER, GOOD.replace("scorch", "burn"), SECOND)


def test_duplicates_are_reported_or_dropped_and_the_first_stays(tmp_path: Path) -> None:
    conversations = {"a": CONVERSATIONS["fine"], "b": CONVERSATIONS["short"], "c": COPY}
    write(tmp_path / "in.jsonl", conversations)
    result = run(tmp_path / "in.jsonl", "-o", tmp_path / "report")
    kept, _ = outputs(tmp_path / "report")
    assert list(kept) == ["a", "b", "c"]
    assert {name: row.get("duplicate_of") for name, row in kept.items()} == {"a": None, "b": None, "c": "a"}
    assert kept["c"]["similarity"] >= 0.8
    assert kept["c"]["repeated_turns"] == [{"index": 2, "of": "a#2", "exact": False}]
    assert "near-duplicates of an earlier conversation" in result.stderr
    run(tmp_path / "in.jsonl", "-o", tmp_path / "drop", "--duplicates", "drop")
    kept, dropped = outputs(tmp_path / "drop")
    assert list(kept) == ["a", "b"]
    assert dropped["c"]["dropped_for"] == "duplicate: of a"
    run(tmp_path / "in.jsonl", "-o", tmp_path / "off", "--duplicates", "off")
    assert not any(
        key in row for row in outputs(tmp_path / "off")[0].values() for key in ("duplicate_of", "repeated_turns")
    )


def test_no_conversation_goes_as_the_duplicate_of_one_that_went(tmp_path: Path) -> None:
    broken = said(QUESTION, ANSWER, f"{GOOD} <|im_end|>", SECOND)
    write(tmp_path / "in.jsonl", {"broken": broken, "fine": CONVERSATIONS["fine"], "copy": COPY})
    run(tmp_path / "in.jsonl", "-o", tmp_path / "out", "--duplicates", "drop", "--on-bad", "drop-conversation")
    kept, dropped = outputs(tmp_path / "out")
    assert list(kept) == ["fine"]
    assert dropped["copy"]["dropped_for"] == "duplicate: of fine"


def test_word_for_word_repeats_across_conversations_are_counted_and_shown(tmp_path: Path) -> None:
    thanks = "Thank you so much for all of your help!"
    write(tmp_path / "in.jsonl", {
        "a": said("One?", "The first answer is about ferries.", thanks, "Fine.", thanks, "Fine!"),
        "b": said("Two?", "The second answer is about bread.", thanks.upper(), "Good."),
        "c": said("Three?", "The third is about lamps.", "ok", "Good."),
        "d": said("Four?", "The fourth is about trains.", "OK!", "Good."),
    })  # fmt: skip
    result = run(tmp_path / "in.jsonl", "-o", tmp_path / "out")
    kept, _ = outputs(tmp_path / "out")
    assert [row.get("repeated_turns") for row in kept.values()] == [
        None, [{"index": 2, "of": "a#2", "exact": True}], None, None
    ]  # fmt: skip
    twice = json.loads((tmp_path / "out" / "run.json").read_bytes())["summary"]["duplicates"]
    assert twice["turns_word_for_word"] == 2
    assert twice["commonest"] == {thanks: 2, "ok": 2}
    assert thanks in result.stderr


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty conversations in batches of four."""
    monkeypatch.setattr("selfplay.cleaning.reading.BATCH", 4)
    monkeypatch.setattr("selfplay.cleaning.clean.BATCH", 4)
    every = list(CONVERSATIONS.values())
    return write(tmp_path / "many.jsonl", {f"c{number}": every[number % len(every)] for number in range(40)})


def whole(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("conversations.jsonl", "dropped.jsonl")]


def test_what_was_judged_before_a_failure_is_not_judged_again(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(many, "-o", tmp_path / "undisturbed")
    real, asked = workers.worker, []

    def failing(at: int) -> Any:
        @contextmanager
        def worker(folder: Path, how: Any) -> Iterator[Any]:
            with real(folder, how) as work:

                def once(number: int, conversations: Any) -> int:
                    if number == at:
                        raise SelfplayError("disk full")
                    asked.append(number)
                    return work(number, conversations)

                yield once

        return worker

    monkeypatch.setattr(workers, "worker", failing(6))
    result = invoke(many, "-o", tmp_path / "out", "--workers", 1)
    assert str(result.exception) == "disk full"
    assert asked == [0, 1, 2, 3, 4, 5]
    assert not (tmp_path / "out" / "conversations.jsonl").exists()
    (tmp_path / "out" / "turns" / ".part-000006.parquet.1.tmp").write_bytes(b"half")
    (tmp_path / "out" / "turns" / "part-000002.parquet").unlink()
    monkeypatch.setattr(workers, "worker", failing(-1))
    run(many, "-o", tmp_path / "out")
    assert asked == [0, 1, 2, 3, 4, 5, 2, 6, 7, 8, 9]
    assert whole(tmp_path / "out") == whole(tmp_path / "undisturbed")
    assert not list((tmp_path / "out" / "turns").glob(".*.tmp"))


def test_another_policy_judges_nothing_again(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(many, "-o", tmp_path / "fresh", "--on-bad", "cut", "--bad", "malformed,generic")
    run(many, "-o", tmp_path / "out")

    def never(*_: Any) -> Any:
        raise AssertionError("judged again")

    monkeypatch.setattr("selfplay.cleaning.turns.tables", never)
    run(many, "-o", tmp_path / "out", "--on-bad", "cut", "--bad", "malformed,generic")
    assert whole(tmp_path / "out") == whole(tmp_path / "fresh")


def test_ctrl_c_finishes_the_batch_in_work_and_the_same_command_goes_on(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(many, "-o", tmp_path / "undisturbed")
    real = clean.Interrupt

    class Soon(real):  # type: ignore[misc, valid-type]
        looked = 0

        @property
        def asked(self) -> bool:
            Soon.looked += 1
            return Soon.looked > 2

        @asked.setter
        def asked(self, value: bool) -> None:
            pass

    monkeypatch.setattr(clean, "Interrupt", Soon)
    result = invoke(many, "-o", tmp_path / "out", "--workers", 1)
    assert result.return_value == 130
    assert "the same command goes on" in result.stderr
    assert 0 < len(list((tmp_path / "out" / "turns").glob("*.parquet"))) < 10
    monkeypatch.setattr(clean, "Interrupt", real)
    run(many, "-o", tmp_path / "out")
    assert whole(tmp_path / "out") == whole(tmp_path / "undisturbed")


MISTAKES: list[tuple[list[str], str]] = [
    (["--bad", "malformd"], "--bad: no label 'malformd'"),
    (["--bad", "none", "--on-bad", "cut", "--model", "m"], "--model is for --on-bad replace"),
    (["--temperature", "0.5"], "--temperature is for --on-bad replace"),
    (["--on-bad", "replace", "--max-n", "9"], "--max-n limits the rounds of --until-survivors"),
    (["--on-bad", "replace", "--engine", "sglang"], "--base-url"),
    (["--rules", "none.json"], "none.json: cannot read it"),
    (["-o", "in.jsonl"], "is a file; -o names a folder"),
    (["-o", "."], "lies in the folder"),
    (["--max-bad", "many"], "--max-bad 'many'"),
]


@pytest.mark.parametrize(("options", "told"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_a_mistake_is_one_line_and_nothing_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = source.read_bytes()
    result = invoke("in.jsonl", *(["-o", "out"] if "-o" not in options else []), *options)
    assert result.exit_code != 0
    assert told in str(result.exception) + result.output
    assert os.listdir() == ["in.jsonl"]
    assert source.read_bytes() == before


def test_rules_without_a_calibration_cannot_keep_above(source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps({"schema": "selfplay-rules/2", "sets": {"text": {"rules": []}}}))
    result = invoke(source, "-o", tmp_path / "out", "--rules", tmp_path / "mine.json", "--keep-above", "0.5")
    assert "no calibration" in str(result.exception)
    assert not (tmp_path / "out" / "conversations.jsonl").exists()


def test_folders_of_others_are_left_alone(source: Path, tmp_path: Path) -> None:
    run(source, "-o", tmp_path / "out")
    changed = write(tmp_path / "changed.jsonl", {"fine": CONVERSATIONS["fine"]})
    result = invoke(changed, "-o", tmp_path / "out")
    assert "other settings (source" in str(result.exception)
    runs = tmp_path / "run"
    runs.mkdir()
    (runs / "run.json").write_text(json.dumps({"format": 1, "sample": {}, "select": None}))
    for extra in ([], ["--fresh"]):
        result = invoke(source, "-o", runs, *extra)
        assert isinstance(result.exception, UsageError)
        assert "not of a selfplay clean" in str(result.exception)
    result = CliRunner().invoke(cli, ["run", str(source), "-o", str(tmp_path / "out"), "--fresh"])
    assert "not of a selfplay run" in str(result.exception)
    assert len(outputs(tmp_path / "out")[0]) == 5


class Teller(ScriptedEngine):
    """Draws a good turn first, then a bad one; nothing good for `early`."""

    def candidate(self, request: SampleRequest, draw: Draw, batch: str) -> Candidate:
        good = "Would a 10 watt LED lamp at 25 cm be bright enough for six hours?"
        turn = good if draw.sample == 0 and "early" not in request.key else "<|im_start|> <|im_start|>"
        return Candidate(draw, turn, (1, 2), (-0.5, -0.25), "stop", 3, 0, True)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Teller:
    """Stands in for the model of `--on-bad replace`."""
    engine = Teller()
    select, _ = judging.configure(judging.Options(tiers="text"))
    config = SampleConfig(source="s", source_hash="h", model="m", temperatures={1.0: 2})

    @contextmanager
    def stages(*_: Any) -> Iterator[Any]:
        with judging.opened(select, judging.Options(tiers="text")) as judge:
            yield engine, judge

    monkeypatch.setattr(execution, "stages", stages)
    monkeypatch.setattr(execution, "configure", lambda *_: (config, None))
    monkeypatch.setattr(execution, "selecting", lambda *_: select)
    return engine


def test_replacing_puts_the_chosen_turn_there_or_cuts(source: Path, tmp_path: Path, engine: Teller) -> None:
    run(source, "-o", tmp_path / "out", "--on-bad", "replace", "--n", 2)
    kept, dropped = outputs(tmp_path / "out")
    assert engine.asked == ["late#3", "early#1", "opened#0"]
    assert list(kept) == ["fine", "late", "early", "short"]
    assert dropped["opened"]["dropped_for"].startswith("nothing left: message 1 is malformed")
    late, early = kept["late"], kept["early"]
    assert late["messages"][:4] == CONVERSATIONS["late"][:4]
    assert late["messages"][4:] == [{"role": "user", "content": late["replacement"]["turn"]}]
    assert "10 watt LED" in late["replacement"]["turn"]
    assert (late["replacement"]["index"], late["replacement"]["model"]) == (4, "m")
    assert late["original_messages"] == CONVERSATIONS["late"]
    assert early["messages"] == CONVERSATIONS["early"][:2]
    assert "replacement" not in early
    assert json.loads((tmp_path / "out" / "replacements" / "run.json").read_bytes())["status"] == "done"
    summary = json.loads((tmp_path / "out" / "run.json").read_bytes())["summary"]
    assert (summary["conversations"]["cut"], summary["conversations"]["replaced"]) == (1, 1)
    asked = list(engine.asked)
    before = whole(tmp_path / "out")
    run(source, "-o", tmp_path / "out", "--on-bad", "replace", "--n", 2)
    assert engine.asked == asked, "a finished run draws nothing again"
    assert whole(tmp_path / "out") == before


def test_fresh_forgets_replacements_and_leaves_what_others_put_there(
    source: Path, tmp_path: Path, engine: Teller
) -> None:
    run(source, "-o", tmp_path / "out", "--on-bad", "replace", "--n", 2)
    (tmp_path / "out" / "replacements" / "notes.txt").write_text("mine")
    run(source, "-o", tmp_path / "out", "--fresh")
    assert [path.name for path in (tmp_path / "out" / "replacements").iterdir()] == ["notes.txt"]
    (tmp_path / "out" / "replacements" / "notes.txt").unlink()
    run(source, "-o", tmp_path / "out", "--fresh")
    assert not (tmp_path / "out" / "replacements").exists()
    assert not (tmp_path / "out" / "to_replace.jsonl").exists()


def test_sites_that_fail_are_cut_and_end_with_1(source: Path, tmp_path: Path, engine: Teller) -> None:
    engine.script = lambda key: "no luck" if key == "late#3" else None
    result = invoke(source, "-o", tmp_path / "out", "--on-bad", "replace", "--n", 2, "--workers", 1)
    assert result.return_value == 1
    assert len(outputs(tmp_path / "out")[0]["late"]["messages"]) == 4
    engine.script = lambda key: None
    run(source, "-o", tmp_path / "out", "--on-bad", "replace", "--n", 2)
    assert len(outputs(tmp_path / "out")[0]["late"]["messages"]) == 5


def test_nothing_to_replace_needs_no_engine(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", {"fine": CONVERSATIONS["fine"]})
    run(tmp_path / "in.jsonl", "-o", tmp_path / "out", "--on-bad", "replace")
    assert not (tmp_path / "out" / "replacements").exists()
    assert list(outputs(tmp_path / "out")[0]) == ["fine"]
