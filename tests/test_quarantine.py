"""Quarantine: what is written, what is counted, and when it ends a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfplay.core import Origin
from selfplay.errors import SelfplayError, TooManyBadRows, UsageError
from selfplay.inputs.quarantine import Quarantine, parse_max_bad


def test_an_entry_tells_file_line_reason_and_row_in_plain_ascii(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    with Quarantine(path) as quarantine:
        quarantine.add(Origin("a.jsonl", 7), "broken JSON: x", "\x1b[31mé\ud800" + "y" * 3_000)
    data = path.read_bytes()
    assert data.isascii()
    assert b"\x1b" not in data
    entry = json.loads(data)
    assert entry["file"] == "a.jsonl"
    assert entry["line"] == 7
    assert entry["reason"] == "broken JSON: x"
    assert entry["row"].startswith("\x1b[31mé")
    assert len(entry["row"]) == 2_000


def test_a_second_run_starts_the_file_anew(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    for reason in ("empty: x", "empty: y"):
        with Quarantine(path) as quarantine:
            quarantine.add(Origin("a", 1), reason)
    assert [json.loads(line)["reason"] for line in path.read_text().splitlines()] == ["empty: y"]


def test_without_a_bad_row_there_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    path.write_text("of an earlier run")
    with Quarantine(path):
        pass
    assert not path.exists()


def test_the_input_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("precious")
    with pytest.raises(UsageError, match="that is the input"):
        Quarantine(path, source=str(path))
    assert path.read_text() == "precious"


def test_reasons_are_counted_by_kind_without_a_file() -> None:
    quarantine = Quarantine()
    for line, reason in enumerate(["unknown role: 'x'", "unknown role: 'y'", "empty: no text"], 1):
        quarantine.add(Origin("a", line), reason)
    assert quarantine.summary() == {"unknown role": 2, "empty": 1}
    assert quarantine.bad == 3
    assert [entry["line"] for entry in quarantine.first] == [1, 3]  # one example of each kind


def test_several_sites_of_one_row_are_one_bad_row() -> None:
    quarantine = Quarantine()
    for site in ("a#1", "a#3"):
        quarantine.add(Origin("a", 1), "over the context: 9,000 tokens", site_id=site)
    quarantine.add(Origin("a", 2), "over the context: 9,000 tokens", site_id="b#1")
    assert quarantine.bad == 2
    assert quarantine.counts["over the context"] == 3
    assert quarantine.first[0]["site_id"] == "a#1"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, (None, None)), ("25", (25, None)), (0, (0, None)), ("1%", (None, 0.01)), (" 0.5% ", (None, 0.005))],
)
def test_max_bad_is_a_count_or_a_share(value: str | int | None, expected: tuple[int | None, float | None]) -> None:
    assert parse_max_bad(value) == expected


@pytest.mark.parametrize("value", ["", "many", "-1", "0.01", "101%", "-1%", "nan%", "%", "1 %%", "²"])
def test_a_max_bad_that_could_mean_anything_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="count such as 25"):
        Quarantine(max_bad=value)


def test_a_count_ends_the_run_at_the_row_that_exceeds_it() -> None:
    quarantine = Quarantine(max_bad="2")
    quarantine.add(Origin("a", 1), "empty: x")
    quarantine.add(Origin("a", 2), "empty: x")
    with pytest.raises(TooManyBadRows, match="more than 2 bad rows") as caught:
        quarantine.add(Origin("a", 3), "broken JSON: x")
    assert caught.value.exit_code == 3
    assert "2 × empty" in str(caught.value)


@pytest.mark.parametrize(("rows", "fails"), [(100, False), (99, True)])
def test_a_share_is_decided_at_the_end_over_all_rows(rows: int, fails: bool) -> None:
    quarantine = Quarantine(max_bad="1%")
    quarantine.add(Origin("a", 1), "empty: x")
    quarantine.rows = rows
    if fails:
        with pytest.raises(TooManyBadRows, match="1 of 99 rows are bad, more than 1%"):
            quarantine.check()
    else:
        quarantine.check()


def test_no_good_row_at_all_is_too_many_under_any_limit() -> None:
    quarantine = Quarantine(max_bad="100%")
    quarantine.check()
    quarantine.rows = 2
    quarantine.add(Origin("a", 1), "empty: x")
    quarantine.check()
    quarantine.add(Origin("a", 2), "empty: x")
    with pytest.raises(TooManyBadRows, match="all 2 rows"):
        quarantine.check()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SelfplayError, match="cannot write"):
        Quarantine(tmp_path / "no" / "such" / "folder.jsonl")


def test_too_many_bad_rows_say_where_even_without_a_file() -> None:
    with Quarantine(None, "0") as quarantine, pytest.raises(TooManyBadRows, match=r"the first in rows\.jsonl, line 7"):
        quarantine.add(Origin("rows.jsonl", 7), "broken JSON: x")
