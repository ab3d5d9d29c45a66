"""Rows in and out: what is not ours survives, what is broken is named, nothing is lost."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard
from click.testing import CliRunner

from selfplay.commands.filter import command
from selfplay.errors import UsageError
from selfplay.quarantine import Quarantine
from selfplay.turnrows import read_turn_rows, take_from_rows, write_turn_rows

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Which lamp for basil?"},
    {
        "role": "assistant",
        "content": [{"type": "text", "text": "A 10 W lamp, "}, {"type": "text", "text": "15 cm up."}],
    },
]
GOOD: dict[str, Any] = {"id": 7, "messages": MESSAGES, "turn": "is 15 cm not too close?", "mine": {"a": [1.5]}}


def written(path: Path, *rows: Any) -> str:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return str(path)


def test_context_columns(tmp_path: Path) -> None:
    row = read_turn_rows(written(tmp_path / "a.jsonl", GOOD), Quarantine()).row(0, named=True)
    assert row["query"] == "Which lamp for basil?"
    assert row["answer"] == "A 10 W lamp, 15 cm up."
    assert row["history"] == ["Which lamp for basil?"]
    assert (row["id"], row["turn"], row["finish_reason"]) == ("7", GOOD["turn"], None)
    assert json.loads(row["row"]) == GOOD


def test_equal_messages_share_a_site(tmp_path: Path) -> None:
    other = {**GOOD, "messages": [*MESSAGES[1:]]}
    table = read_turn_rows(written(tmp_path / "a.jsonl", GOOD, {**GOOD, "turn": "x"}, other), Quarantine())
    assert table["site_id"][0] == table["site_id"][1] != table["site_id"][2]


BAD = {
    "{": "not JSON",
    "[1]": "must be an object",
    '{"turn": NaN}': "not JSON",
    json.dumps({"messages": MESSAGES}): "no `turn`",
    json.dumps({**GOOD, "turn": 3}): "`turn` must be text",
    json.dumps({"turn": "x"}): "no `messages`",
    json.dumps({**GOOD, "messages": []}): "not empty",
    json.dumps({**GOOD, "messages": MESSAGES[:2]}): "must end with the assistant's",
    json.dumps({**GOOD, "messages": [{"content": "x"}]}): "has no role",
    json.dumps({**GOOD, "messages": [{"role": "assistant", "content": 4}]}): "content must be text",
    json.dumps({**GOOD, "messages": [{"role": "assistant", "content": " "}]}): "is empty",
    "[" * 100_000: "nested too deep",
}


def test_bad_rows_are_named_and_good_ones_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", GOOD, *BAD, GOOD)
    with Quarantine(tmp_path / "q.jsonl") as quarantine:
        assert len(read_turn_rows(path, quarantine)) == 2
    entries = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert [entry["line"] for entry in entries] == list(range(2, 2 + len(BAD)))
    for entry, reason in zip(entries, BAD.values(), strict=True):
        assert reason in entry["reason"]
    assert quarantine.rows == len(BAD) + 2


@pytest.mark.parametrize("name", ["o.jsonl", "o.jsonl.gz", "o.jsonl.zst"])
def test_round_trip_through_every_format(tmp_path: Path, name: str) -> None:
    odd = {**GOOD, "turn": "lone \ud800 bidi \u202e", "huge": 1e300}
    table = read_turn_rows(written(tmp_path / "a.jsonl", GOOD, odd), Quarantine())
    out = str(tmp_path / name)
    assert write_turn_rows(table.with_columns(label=pl.lit("generic")), out, ["label"]) == 2
    again = read_turn_rows(out, Quarantine())
    assert [json.loads(row) for row in again["row"]] == [{**row, "label": "generic"} for row in (GOOD, odd)]
    assert take_from_rows(again, {"label": pl.String(), "none": pl.String()})["label"].to_list() == ["generic"] * 2


def test_parquet(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"turn": ["a", "b"], "messages": [[*MESSAGES[1:2], {"role": "assistant", "content": "yes"}]] * 2}
    )
    frame.write_parquet(tmp_path / "in.parquet")
    table = read_turn_rows(str(tmp_path / "in.parquet"), Quarantine())
    assert table["turn"].to_list() == ["a", "b"]
    write_turn_rows(table.with_columns(rank=pl.lit(1)), str(tmp_path / "out.parquet"), ["rank"])
    assert pl.read_parquet(tmp_path / "out.parquet")["rank"].to_list() == [1, 1]


def test_parquet_of_a_run_has_its_context_in_columns(tmp_path: Path) -> None:
    frame = pl.DataFrame({"site_id": ["c#1"], "turn": ["b"], "query": ["q"], "answer": ["a"], "history": [["p", "q"]]})
    frame.write_parquet(tmp_path / "in.parquet")
    row = read_turn_rows(str(tmp_path / "in.parquet"), Quarantine()).row(0, named=True)
    assert (row["site_id"], row["query"], row["history"]) == ("c#1", "q", ["p", "q"])


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl.gz", "x.jsonl.zst", "none.jsonl"])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str) -> None:
    if name != "none.jsonl":
        (tmp_path / name).write_bytes(b"hello")
    with pytest.raises(UsageError, match=name) as caught:
        read_turn_rows(str(tmp_path / name), Quarantine())
    assert "\n" not in str(caught.value)


def test_a_truncated_archive_is_one_line(tmp_path: Path) -> None:
    data = json.dumps(GOOD).encode() * 50
    for name, packed in (("x.jsonl.gz", gzip.compress(data)), ("x.jsonl.zst", zstandard.compress(data))):
        (tmp_path / name).write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UsageError, match="cannot read it"):
        read_turn_rows(str(tmp_path / "x.jsonl.gz"), Quarantine())


def test_the_verb_labels_from_stdin_to_stdout() -> None:
    rows = [GOOD, {**GOOD, "turn": "ok"}, "{"]
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    result = CliRunner().invoke(command, ["-", "-o", "-", "--tiers", "text"], input=text, catch_exceptions=False)
    assert result.exit_code == 0
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["label"] for row in found] == ["follow_up", "degenerate"]
    assert found[0]["mine"] == GOOD["mine"]
    assert "1 bad rows left out" in result.stderr
    assert "2 turns, 1 passed the rules" in result.stderr
    assert "extrapolated: the generator is not known" in result.stderr


def test_the_verb_names_a_mistake_in_the_rules(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", GOOD)
    rules = written(tmp_path / "rules.json", {"schema": "selfplay-rules/1", "rules": [{"name": "x", "label": "y"}]})
    with pytest.raises(UsageError, match=r"rules\[0\] \(x\): label 'y'"):
        CliRunner().invoke(command, [path, "-o", "-", "--rules", rules], catch_exceptions=False)
