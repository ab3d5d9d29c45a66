"""Rows in and out: what is not ours survives, what is broken is named, nothing is lost."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard
from click.testing import CliRunner

from selfplay.cli import cli
from selfplay.commands.filter import command
from selfplay.errors import TooManyBadRows, UsageError
from selfplay.inputs.parquet_parts import parquet_rows
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.turnrows import read_turn_rows, take_from_rows, write_turn_rows

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
    "{": "broken JSON",
    "[1]": "not an object",
    '{"turn": NaN}': "not a finite number",
    '{"turn": "a", "turn": "b"}': "duplicate key",
    json.dumps({"messages": MESSAGES}): "missing turn",
    json.dumps({**GOOD, "turn": 3}): "turn is a number",
    json.dumps({**GOOD, "turn": "half \ud800"}): "lone surrogate",
    json.dumps({"turn": "x"}): "no conversation",
    json.dumps({**GOOD, "messages": []}): "empty list",
    json.dumps({**GOOD, "messages": "[{"}): "messages is text but not JSON",
    json.dumps({**GOOD, "messages": MESSAGES[:2]}): "must end with the assistant's",
    json.dumps({**GOOD, "messages": [{"content": "x"}]}): "missing role",
    json.dumps({**GOOD, "messages": [{"role": "assistant", "content": 4}]}): "content of message 1",
    json.dumps({**GOOD, "messages": [{"role": "assistant", "content": " "}]}): "no text",
    "[" * 100_000: "nested too deep",
    json.dumps({"turn": "x", "answer": "a", "history": [3]}): "history is not a list of strings",
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
    odd = {**GOOD, "turn": "escape \x1b bidi \u202e", "huge": 1e300}
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


SHAREGPT = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "Which lamp for basil?"},
    {"from": "gpt", "value": "A 10 W lamp, 15 cm up."},
]


@pytest.mark.parametrize(
    "given",
    [
        {"conversations": SHAREGPT},
        {"prompt": MESSAGES[:2], "response": "A 10 W lamp, 15 cm up."},
        {"messages": json.dumps(MESSAGES)},
    ],
    ids=["ShareGPT", "prompt and response", "JSON text"],
)
def test_every_shape_of_a_conversation_is_the_same_site_and_comes_back_as_it_was(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    odd = {"id": 7, "turn": GOOD["turn"], "mine": None, **given}
    table = read_turn_rows(written(tmp_path / "a.jsonl", GOOD, odd), Quarantine())
    assert table["site_id"].n_unique() == 1
    assert table.select("query", "answer", "history", "id").n_unique() == 1
    assert json.loads(table["row"][1]) == odd


def test_an_answer_that_also_calls_a_tool_is_a_place_for_a_turn(tmp_path: Path) -> None:
    calls = [{"type": "function", "function": {"name": "order", "arguments": "{}"}}]
    row = {"messages": [*MESSAGES[:2], {"role": "assistant", "content": "Shall I?", "tool_calls": calls}], "turn": "no"}
    assert read_turn_rows(written(tmp_path / "a.jsonl", row), Quarantine())["answer"].to_list() == ["Shall I?"]


def test_a_given_site_id_is_kept(tmp_path: Path) -> None:
    table = read_turn_rows(written(tmp_path / "a.jsonl", {**GOOD, "site_id": "c#2"}), Quarantine())
    assert table["site_id"].to_list() == ["c#2"]


@pytest.mark.parametrize(
    ("name", "data"),
    [("x.parquet", b"PAR1 hello"), ("x.jsonl.gz", b"PK\x03\x04"), ("x.jsonl.zst", b""), ("none.jsonl", None)],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=name) as caught:
        read_turn_rows(str(tmp_path / name), Quarantine())
    assert "\n" not in str(caught.value)


def test_what_can_be_read_of_a_truncated_archive_is_kept(tmp_path: Path) -> None:
    data = b"".join(json.dumps({**GOOD, "turn": str(n) * 40}).encode() + b"\n" for n in range(5_000))
    for name, packed in (("x.jsonl.gz", gzip.compress(data)), ("x.jsonl.zst", zstandard.compress(data))):
        (tmp_path / name).write_bytes(packed[: len(packed) // 2])
        quarantine = Quarantine()
        table = read_turn_rows(str(tmp_path / name), quarantine)
        assert 0 < len(table) < 5_000
        assert table["turn"].to_list() == [str(n) * 40 for n in range(len(table))]
        assert quarantine.summary() == {"damaged file": 1}


def test_a_broken_write_leaves_what_was_there(tmp_path: Path) -> None:
    table = read_turn_rows(written(tmp_path / "a.jsonl", GOOD), Quarantine())

    def tables() -> Any:
        yield table
        raise RuntimeError

    for name in ("out.jsonl", "out.jsonl.gz", "out.parquet"):
        (tmp_path / name).write_text("before")
        with pytest.raises(RuntimeError):
            write_turn_rows(tables(), str(tmp_path / name), ["turn"])
        assert (tmp_path / name).read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out.jsonl", "out.jsonl.gz", "out.parquet"]


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
    rules = written(
        tmp_path / "rules.json",
        {"schema": "selfplay-rules/2", "sets": {"text": {"rules": [{"name": "x", "label": "y"}]}}},
    )
    with pytest.raises(UsageError, match=r"rules\[0\] \(x\): label 'y'"):
        CliRunner().invoke(command, [path, "-o", "-", "--rules", rules], catch_exceptions=False)


@pytest.mark.parametrize("verb", ["filter", "rank"])
def test_bad_rows_go_beside_the_output_and_without_any_there_is_no_file(tmp_path: Path, verb: str) -> None:
    beside = tmp_path / "new" / "out.jsonl.quarantine.jsonl"
    for rows, bad in (([GOOD, "{"], [2]), ([GOOD], [])):
        call = [
            verb,
            written(tmp_path / "a.jsonl", *rows),
            "--tiers",
            "text",
            "--out",
            str(tmp_path / "new" / "out.jsonl"),
        ]
        done = CliRunner().invoke(cli, call, catch_exceptions=False)
        assert done.exit_code == 0
        entries = beside.read_text().splitlines() if beside.exists() else []
        assert [json.loads(entry)["line"] for entry in entries] == bad
        assert ("1 bad rows left out" in done.stderr) == bool(bad)
    assert not beside.exists()


def test_a_device_as_output_is_written_and_neither_replaced_nor_given_a_neighbour(tmp_path: Path) -> None:
    device = tmp_path / "null"
    device.symlink_to("/dev/null")  # only the link is at risk
    call = ["filter", written(tmp_path / "a.jsonl", GOOD, "{"), "--tiers", "text", "-o", str(device)]
    assert CliRunner().invoke(cli, call, catch_exceptions=False).exit_code == 0
    assert device.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "null"]


@pytest.mark.parametrize("verb", ["filter", "rank"])
def test_too_many_bad_rows_write_nothing(tmp_path: Path, verb: str) -> None:
    path = written(tmp_path / "a.jsonl", GOOD, "{")
    call = [verb, path, "--tiers", "text", "-o", str(tmp_path / "out.jsonl"), "--max-bad", "10%"]
    assert isinstance(CliRunner().invoke(cli, call).exception, TooManyBadRows)
    assert not (tmp_path / "out.jsonl").exists()


def test_filter_never_says_that_a_turn_which_passed_is_a_follow_up(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", GOOD, {**GOOD, "turn": "ok"})
    done = CliRunner().invoke(cli, ["filter", path, "--tiers", "text"], catch_exceptions=False)
    assert "follow_up" not in done.stderr
    assert "1 passed the rules" in done.stderr
    assert "faults: degenerate 1" in done.stderr


def test_parquet_of_many_parts_has_the_rows_in_order_and_every_column(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "messages": [{"role": "user", "content": "a"}], "extra": None, "tags": [], "z": 1},
        {"id": 2, "messages": [{"role": "user", "content": "b", "name": "n"}], "extra": {"a": [1]}, "tags": ["t"]},
        {"id": 3, "messages": [], "z": 1.5, "new": "x"},
    ]
    with parquet_rows(tmp_path / "a.parquet", "a.parquet", rows=1) as add:
        add(iter(rows))
    found = pl.read_parquet(tmp_path / "a.parquet")
    assert found["id"].to_list() == [1, 2, 3]
    assert found["messages"].to_list()[1] == [{"role": "user", "content": "b", "name": "n"}]
    assert found["extra"].to_list() == [None, {"a": [1]}, None]
    assert found["z"].to_list() == [1.0, None, 1.5]
    assert found["new"].to_list() == [None, None, "x"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize("size", [1, 10])
def test_a_column_of_several_types_is_one_line(tmp_path: Path, size: int) -> None:
    with (
        pytest.raises(
            UsageError, match=r"out\.parquet: a column holds values of several types; write \.jsonl"
        ) as caught,
        parquet_rows(tmp_path / "a.parquet", "out.parquet", rows=size) as add,
    ):
        add([{"content": [{"type": "text"}]}, {"content": "text"}])
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
