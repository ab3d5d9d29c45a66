"""Judged and annotated files as training data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfplay.errors import UsageError
from selfplay.learning.training import read_judged
from tests.test_training import judged

MESSAGES = [{"role": "user", "content": "Eggs?"}, {"role": "assistant", "content": "Eight minutes."}]


def row(turn: str, label: str | None = "follow_up", grade: Any = 2, **more: Any) -> dict[str, Any]:
    return {"id": "x", "messages": MESSAGES, "turn": turn, "label": label, "groundedness": grade, "judge": "m", **more}


def written(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "judged.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def test_the_table_has_the_columns_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    folder = read_judged(judged(tmp_path / "folder"))
    table = read_judged(written(tmp_path, row("Soft?", finish_reason="stop", model="M")))
    assert set(table.columns) == set(folder.columns)
    found = table.row(0, named=True)
    assert (found["turn"], found["label"], found["grade"], found["source"]) == ("Soft?", "follow_up", 2, "M")
    assert (found["query"], found["answer"], found["history"]) == ("Eggs?", "Eight minutes.", ["Eggs?"])
    assert found["finish_reason"] == "stop"
    assert json.loads(found["messages"]) == MESSAGES


def test_where_the_source_and_the_conversation_come_from(tmp_path: Path) -> None:
    names = [{"source": "a", "generator": "b", "model": "c"}, {"generator": "b", "model": "c"}, {"model": "c"}, {}]
    table = read_judged(written(tmp_path, *(row(f"t{n}", **each) for n, each in enumerate(names))))
    assert table["source"].to_list() == ["a", "b", "c", "unknown"]
    assert table["context"].n_unique() == 1
    later = [*MESSAGES, {"role": "user", "content": "Soft?"}, {"role": "assistant", "content": "Six."}]
    rows = [row("a"), {**row("b"), "messages": later}, row("c", conversation_id="k")]
    contexts = read_judged(written(tmp_path, *rows))["context"].to_list()
    assert contexts[0] == contexts[1]  # a later site of the same conversation stays on its side of a split
    assert contexts[2] == "k"


def test_what_has_no_valid_label_is_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row("a"), row("b", None, None, judge_error="not JSON"), row("c", grade=0.5), row("d", "odd"), {"turn": "e"}]
    assert read_judged(written(tmp_path, *rows))["turn"].to_list() == ["a"]
    told = capsys.readouterr().err
    for reason in ("1 × invalid or without label", "1 × groundedness is no grade", "1 × label 'odd'", "1 × bad row"):
        assert reason in told


def test_several_judges_of_a_turn_are_one_row_by_majority(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    votes = {"a": "follow_up generic follow_up", "b": "generic follow_up", "c": "generic generic"}
    rows = [
        row(turn, label, grade, judge=f"m{grade}")
        for turn, labels in votes.items()
        for grade, label in enumerate(labels.split(), 1)
    ]
    table = read_judged(written(tmp_path, *rows))
    assert table.select("turn", "label", "grade").rows() == [("a", "follow_up", 2), ("c", "generic", 2)]
    assert "1 × judges without a majority" in capsys.readouterr().err
    assert table["id"].n_unique() == 2


def test_labels_by_rules_are_no_lessons(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="labels are by rules"):
        read_judged(written(tmp_path, row("a", rule=None)))


def test_nothing_to_learn_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no turn with a label"):
        read_judged(written(tmp_path, row("a", None, None)))
