"""Judged turns as they are read for learning."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from selfplay.errors import UsageError
from selfplay.learning.training import read_judged, read_signals


def judged(folder: Path, answer: str = "Eight minutes.", messages: bool = True) -> Path:
    context = [{"role": "user", "content": "Eggs?"}, {"role": "assistant", "content": answer}]
    turn = {"id": "t", "context": "c", "source": "s", "text": answer, "label": "follow_up", "groundedness": 1}
    for name, row in (
        ("contexts.jsonl", {"id": "c", "messages": context if messages else []}),
        ("judged_turns.jsonl", turn),
    ):
        (folder / name).write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    return folder


def test_text_with_other_line_separators_is_one_row(tmp_path: Path) -> None:
    text = "one\u2028two\u0085three"
    table = read_judged(judged(tmp_path, text))
    assert table["answer"].to_list() == table["turn"].to_list() == [text]


def test_a_context_without_messages_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not judged turns"):
        read_judged(judged(tmp_path, messages=False))


def test_kept_signals_must_cover_the_judged_turns(tmp_path: Path) -> None:
    table, kept = read_judged(judged(tmp_path)), tmp_path / "signals.parquet"
    pl.DataFrame({"id": ["other"], "x": [1.0]}).write_parquet(kept, metadata={"models": "{}"})
    with pytest.raises(UsageError, match="lacks 1 of 1 turns"):
        read_signals(kept, table)
    kept.write_bytes(b"PAR1")
    with pytest.raises(UsageError, match="not measured signals"):
        read_signals(kept, table)


def test_a_parquet_of_other_things_is_not_to_be_deleted(tmp_path: Path) -> None:
    table, kept = read_judged(judged(tmp_path)), tmp_path / "mine.parquet"
    pl.DataFrame({"id": ["a"]}).write_parquet(kept)
    with pytest.raises(UsageError, match="not measured signals; name another file") as error:
        read_signals(kept, table)
    assert "delete" not in str(error.value)


def test_what_is_no_folder_of_judged_turns_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: no such file or folder"):
        read_judged(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"holds contexts.jsonl and judged_turns.jsonl; contexts.jsonl is missing"):
        read_judged(tmp_path)
