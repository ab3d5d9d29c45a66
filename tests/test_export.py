"""The folder of an export: its files and splits, and what it refuses to touch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from selfplay.cli import VERBS, cli
from selfplay.commands import export as command
from selfplay.config import SampleConfig
from selfplay.errors import UsageError
from selfplay.exporting.export import FITTING, HUB, Export, export
from selfplay.exporting.formats import FORMATS, Options
from selfplay.exporting.writing import split_of
from selfplay.runs import Run
from tests.folders import CONTEXT, candidate, clean_folder, dialogue, judged, run_folder

SITE = [candidate("From the fridge?", 0.9, 0.8), candidate("Eggs?", 0.1, 0.1, "flagged")]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_folder(tmp_path / "run", [[SITE] * 30, [SITE] * 30])


def ids(path: Path) -> list[str]:
    return [json.loads(line)["conversation_id"] for line in path.read_text().splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_command_knows_the_formats_without_importing_them() -> None:
    assert (*FORMATS, HUB) == command.FORMATS
    assert "export" in VERBS
    assert {name for names in FITTING.values() for name in names} <= set(FORMATS)


def test_a_conversation_is_on_one_side_and_stays_there_when_more_data_comes(tmp_path: Path, run: Path) -> None:
    export(run, tmp_path / "out", Export(("kto",), validation=0.3))
    train, validation = (set(ids(tmp_path / "out" / f"{split}.jsonl")) for split in ("train", "validation"))
    assert train | validation == {f"c{i}" for i in range(60)}
    assert not train & validation
    assert 8 <= len(validation) <= 28
    run_folder(tmp_path / "more", [[SITE] * 200])
    export(tmp_path / "more", tmp_path / "again", Export(("messages",), validation=0.3))
    assert validation <= set(ids(tmp_path / "again" / "validation.jsonl"))
    assert train <= set(ids(tmp_path / "again" / "train.jsonl"))


def test_the_seed_decides_the_split_and_copies_of_an_id_go_together() -> None:
    names = [f"c{i}" for i in range(2000)]
    split = [split_of(name, 0.1, 0) for name in names]
    assert 140 < split.count("validation") < 260
    assert split != [split_of(name, 0.1, 1) for name in names]
    assert split == [split_of(f"{name}~2", 0.1, 0) for name in names]
    assert {split_of(name, 0.0, 0) for name in names} == {"train"}


def test_the_same_results_give_the_same_files(tmp_path: Path, run: Path) -> None:
    asked = Export(("dpo", "messages"), file_type="parquet", validation=0.2, seed=4)
    counts = export(run, tmp_path / "a", asked)
    export(run, tmp_path / "b", asked)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert set(files(tmp_path / "a")) == {
        "export.json", *(f"{name}/{split}.parquet" for name in counts for split in ("train", "validation")),
    }  # fmt: skip
    for name, splits in counts.items():
        for split, count in splits.items():
            assert len(pl.read_parquet(tmp_path / "a" / name / f"{split}.parquet")) == count


def test_the_results_are_not_touched(tmp_path: Path, run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    export(run, tmp_path / "out", Export(("hub",)))
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize("inside", ["run/out", "run", "."])
def test_places_in_and_around_the_results_are_refused(tmp_path: Path, run: Path, inside: str) -> None:
    with pytest.raises(UsageError, match="one in the other"):
        export(run, tmp_path / inside, Export(overwrite=True))


def test_a_folder_of_somebody_elses_is_refused_and_with_overwrite_only_joined(tmp_path: Path, run: Path) -> None:
    out = tmp_path / "theirs"
    out.mkdir()
    (out / "thesis.txt").write_text("x")
    (out / "train.jsonl").write_text("old")
    with pytest.raises(UsageError, match="holds no export"):
        export(run, out)
    assert (out / "train.jsonl").read_text() == "old"
    export(run, out, Export(overwrite=True))
    assert (out / "thesis.txt").read_text() == "x"
    assert len(ids(out / "train.jsonl")) == 60


def test_an_export_of_ours_is_replaced_and_leaves_nothing_of_the_old_one(tmp_path: Path, run: Path) -> None:
    out = tmp_path / "out"
    export(run, out, Export(("messages", "dpo"), validation=0.3))
    (out / "note.txt").write_text("mine")
    export(run, out, Export(("kto",)))
    assert set(files(out)) == {"export.json", "train.jsonl", "note.txt"}
    export(run, out, Export(("hub",)))
    assert "train.jsonl" not in files(out)


def test_a_card_that_was_edited_is_not_lost(tmp_path: Path, run: Path) -> None:
    out = tmp_path / "out"
    export(run, out, Export(("hub",)))
    export(run, out, Export(("hub",)))
    (out / "README.md").write_text("My own words.")
    with pytest.raises(UsageError, match=r"README\.md was edited"):
        export(run, out, Export(("hub",)))
    assert (out / "README.md").read_text() == "My own words."
    export(run, out, Export(("hub",), overwrite=True))
    assert "My own words." not in (out / "README.md").read_text()


def test_a_record_that_names_files_outside_removes_none(tmp_path: Path, run: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other.txt"
    export(run, out)
    other.write_text("x")
    record = json.loads((out / "export.json").read_bytes())
    (out / "export.json").write_text(json.dumps(record | {"files": ["../other.txt", str(other), "train.jsonl"]}))
    export(run, out)
    assert other.read_text() == "x"


def test_nothing_to_export_leaves_what_was_there(tmp_path: Path, run: Path) -> None:
    out = tmp_path / "out"
    export(run, out)
    before = files(out)
    run_folder(tmp_path / "empty", [[SITE[1:]]])
    with pytest.raises(UsageError, match="no turn to export as prompt-completion; nothing was written"):
        export(tmp_path / "empty", out)
    assert files(out) == before
    with pytest.raises(UsageError):
        export(tmp_path / "empty", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "out", "run"]


def test_a_death_in_the_middle_leaves_the_old_files_and_the_next_start_tidies(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export(run, out)
    before = files(out)
    aside = tmp_path / ".out.export.tmp"
    aside.mkdir()
    (aside / "half").write_text("x")  # as a kill leaves it

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("selfplay.exporting.export.write_splits", full)
        with pytest.raises(UsageError, match="No space left"):
            export(run, out)
    assert files(out) == before
    export(run, out)
    assert files(out) == before
    assert not aside.exists()


def test_a_split_without_rows_has_no_file(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", [[SITE]])
    counts = export(tmp_path / "run", tmp_path / "out", Export(validation=0.01))
    assert counts == {"prompt-completion": {"train": 1}}
    assert not (tmp_path / "out" / "validation.jsonl").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_samples_that_nobody_judged_are_refused(tmp_path: Path, name: str) -> None:
    run = Run(tmp_path / "run", SampleConfig(source="s", source_hash="h", model="m").as_json(), None)
    run.save(status="done")
    run.close()
    with pytest.raises(UsageError, match="nobody judged"):
        export(tmp_path / "run", tmp_path / "out", Export((name,)))


def test_parquet_keeps_the_arguments_of_every_tool_as_they_were(tmp_path: Path) -> None:
    def talk(number: int, arguments: dict[str, Any]) -> dict[str, Any]:
        call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": arguments}}
        asked = {"role": "assistant", "content": "", "tool_calls": [call]}
        answer = [asked, {"role": "tool", "content": "8", "tool_call_id": "1"}, {"role": "assistant", "content": "8."}]
        messages = [*CONTEXT, {"role": "user", "content": "Look it up."}, *answer]
        return {"id": f"c{number}", "messages": messages, "user_turns": [judged(3)]}

    plain = {"id": "c2", "messages": CONTEXT + dialogue(1), "user_turns": [judged(3)]}
    clean_folder(tmp_path / "clean", [talk(0, {"what": "eggs"}), talk(1, {"size": 3}), plain])
    export(tmp_path / "clean", tmp_path / "out", Export(("assistant",), file_type="parquet"))
    table = pl.read_parquet(tmp_path / "out" / "train.parquet")
    told = [[m["tool_calls"][0]["function"]["arguments"] for m in row if m["tool_calls"]] for row in table["messages"]]
    assert told == [['{"what": "eggs"}'], ['{"size": 3}'], []]


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["export", *map(str, arguments)])


def test_the_verb(tmp_path: Path, run: Path) -> None:
    options = ("--format", "dpo", "--format", "kto", "--validation", 0.2, "--margin", 0.1, "--column", "lang")
    done = invoke(run, "-o", tmp_path / "out", *options)
    assert done.exit_code == 0, done.output
    dpo, kto, written = done.stderr.splitlines()
    assert dpo.startswith("dpo  train ")
    assert "validation" in kto
    assert written == f"written to {tmp_path / 'out'}"
    record = json.loads((tmp_path / "out" / "export.json").read_bytes())
    assert record["settings"] == {"formats": ["dpo", "kto"], "validation": 0.2, "margin": 0.1, "columns": ["lang"]}
    assert record["source"] == "run"
    assert invoke(run, "-o", tmp_path / "out", "-q").output == ""


def test_library_and_verb_refuse_alike(tmp_path: Path, run: Path) -> None:
    with pytest.raises(UsageError, match="no format 'docx'"):
        export(run, tmp_path / "out", Export(("docx",)))
    assert invoke(run, "-o", tmp_path / "out", "--format", "docx").exit_code == 2
    assert invoke(tmp_path / "none", "-o", tmp_path / "out").exception.args[0].startswith(f"{tmp_path}/none: no such")
    assert invoke(run, "-o", tmp_path / "out", "--validation", 1).exit_code == 2
    with pytest.raises(UsageError, match="is a file"):
        export(run, run / "run.json", Export(rows=Options()))
