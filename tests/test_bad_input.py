"""Bad input of every kind we know: none raises a traceback, none takes a good row with it.

Each bad row stands on line 2 between good rows on lines 1 and 3.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfplay.core import Conversation
from selfplay.errors import UsageError
from selfplay.inputs.conversations import read_conversations
from selfplay.inputs.quarantine import Quarantine

USER = {"role": "user", "content": "Why is the sky blue?"}
ASSISTANT = {"role": "assistant", "content": "Air scatters short waves more."}


def good(name: str) -> dict[str, Any]:
    return {"id": name, "messages": [USER, ASSISTANT]}


def row(*messages: Any, **columns: Any) -> bytes:
    return json.dumps({"messages": list(messages), **columns}).encode()


def lines(*rows: bytes) -> bytes:
    return b"\n".join(rows) + b"\n"


FIRST, LAST = json.dumps(good("first")).encode(), json.dumps(good("last")).encode()


def read(path: Path | str, out: Path) -> tuple[list[Conversation], list[dict[str, Any]], Quarantine]:
    with Quarantine(out / "quarantine.jsonl") as quarantine:
        conversations = list(read_conversations(str(path), quarantine))
    written = out / "quarantine.jsonl"
    assert written.exists() == (quarantine.bad > 0)
    text = written.read_text(encoding="ascii") if written.exists() else ""
    return conversations, [json.loads(line) for line in text.splitlines()], quarantine


BAD_ROWS: dict[str, tuple[bytes, str]] = {
    "cut off": (FIRST[:40], "broken JSON"),
    "no JSON at all": (b"hello there", "broken JSON"),
    "two objects on one line": (FIRST + FIRST, "broken JSON"),
    "trailing comma": (b'{"messages": [],}', "broken JSON"),
    "single quotes": (b"{'messages': []}", "broken JSON"),
    "raw control character in a string": (b'{"messages": "a\x01b"}', "broken JSON"),
    "raw NUL": (FIRST.replace(b"sky", b"s\0y"), "broken JSON"),
    "an escape sequence": (b"\x1b[31mred", "broken JSON"),
    "not UTF-8": (FIRST.replace(b"sky", b"\xff\xfe"), "not UTF-8"),
    "latin-1": (FIRST.replace(b"sky", "é".encode("latin-1")), "not UTF-8"),
    "lone surrogate": (FIRST.replace(b"sky", rb"\ud83d"), "lone surrogate"),
    "lone surrogate in a key": (b'{"\\uDC00": 1, ' + FIRST[1:], "lone surrogate"),
    "NaN": (b'{"score": NaN, ' + FIRST[1:], "not a finite number"),
    "Infinity": (b'{"score": -Infinity, ' + FIRST[1:], "not a finite number"),
    "a float too large": (b'{"score": 1e999, ' + FIRST[1:], "not a finite number"),
    "an integer of 5,000 digits": (b'{"score": ' + b"9" * 5000 + b", " + FIRST[1:], "not a finite number"),
    "duplicate key": (b'{"messages": [], ' + FIRST[1:], "duplicate key"),
    "duplicate key in a message": (FIRST.replace(b'"role"', b'"content": "x", "role"', 1), "duplicate key"),
    "nested 100,000 deep": (b"[" * 100_000, "nested too deeply"),
    "nested 300 deep": (b'{"x": ' + b"[" * 300 + b"]" * 300 + b", " + FIRST[1:], "nested too deeply"),
    "null": (b"null", "not an object"),
    "a number": (b"42", "not an object"),
    "a string": (b'"messages"', "not an object"),
    "a bare list of messages": (json.dumps([USER, ASSISTANT]).encode(), "not an object"),
    "empty object": (b"{}", "no conversation"),
    "foreign columns": (b'{"instruction": "a", "output": "b"}', "no conversation"),
    "prompt without an answer": (b'{"prompt": "a"}', "no conversation"),
    "both response and completion": (b'{"prompt": "a", "response": "b", "completion": "c"}', "ambiguous"),
    "messages null": (b'{"messages": null}', "wrong type"),
    "messages a string": (b'{"messages": "hi"}', "wrong type"),
    "messages an object": (b'{"messages": {"role": "user"}}', "wrong type"),
    "messages empty": (b'{"messages": []}', "no messages"),
    "message null": (row(None, ASSISTANT), "wrong type"),
    "message a string": (row("hi", ASSISTANT), "wrong type"),
    "role missing": (row({"content": "hi"}, ASSISTANT), "missing role"),
    "role null": (row({"role": None, "content": "hi"}, ASSISTANT), "missing role"),
    "role a number": (row({"role": 1, "content": "hi"}, ASSISTANT), "wrong type"),
    "role unknown": (row({"role": "narrator", "content": "hi"}, ASSISTANT), "unknown role"),
    "content missing": (row({"role": "user"}, ASSISTANT), "missing content"),
    "content null": (row({"role": "user", "content": None}, ASSISTANT), "wrong type"),
    "content a number": (row({"role": "user", "content": 3.5}, ASSISTANT), "wrong type"),
    "content an object": (row({"role": "user", "content": {"text": "hi"}}, ASSISTANT), "wrong type"),
    "assistant null without tool calls": (row(USER, {"role": "assistant", "content": None}), "wrong type"),
    "an image": (row({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ASSISTANT), "not text"),
    "a part without text": (row({"role": "user", "content": [{"type": "text"}]}, ASSISTANT), "wrong type"),
    "a part that is a number": (row({"role": "user", "content": [1]}, ASSISTANT), "wrong type"),
    "all content empty": (row({"role": "user", "content": ""}, {"role": "assistant", "content": " \n"}), "empty"),
    "only users": (row(USER, USER), "assistant never speaks"),
    "assistant says nothing": (row(USER, {"role": "assistant", "content": ""}), "assistant never speaks"),
    "assistant only calls tools": (
        row(USER, {"role": "assistant", "content": None, "tool_calls": [{"function": {}}]}),
        "assistant never speaks",
    ),
    "everything said is followed by a tool": (
        row(USER, ASSISTANT, {"role": "tool", "content": "42"}),
        "no place for a user turn",
    ),
    "id a list": (row(USER, ASSISTANT, id=[1]), "wrong type"),
    "id a boolean": (row(USER, ASSISTANT, id=True), "wrong type"),
    "id a float": (row(USER, ASSISTANT, id=1.5), "wrong type"),
    "ShareGPT role unknown": (b'{"conversations": [{"from": "alien", "value": "x"}]}', "unknown role"),
    "ShareGPT value missing": (b'{"conversations": [{"from": "gpt"}]}', "missing content"),
    "function_call that is no JSON": (
        b'{"conversations": [{"from": "function_call", "value": "f("}]}',
        "wrong type",
    ),
    "lists that differ in length": (b'{"messages": {"role": ["user"], "content": []}}', "wrong type"),
    "prompt a number": (b'{"prompt": 1, "completion": "x"}', "wrong type"),
    "completion empty": (b'{"prompt": "a", "completion": ""}', "assistant never speaks"),
}


@pytest.mark.parametrize(("bad", "kind"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_put_aside_and_its_neighbours_are_read(bad: bytes, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines(FIRST, bad, LAST))
    conversations, quarantined, quarantine = read(path, tmp_path)
    assert [c.id for c in conversations] == ["first", "last"]
    (entry,) = quarantined
    assert (entry["file"], entry["line"]) == (str(path), 2)
    assert entry["reason"].split(": ")[0] == kind
    assert len(entry["row"]) <= 2_000
    assert entry["row"].startswith(bad[:20].decode("utf-8", "replace")[:15])
    assert (quarantine.rows, quarantine.bad) == (3, 1)


def test_a_bad_first_row_decides_no_shape(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines(b"oops", b'["x"]', FIRST, LAST))
    conversations, quarantined, _ = read(path, tmp_path)
    assert [c.id for c in conversations] == ["first", "last"]
    assert [q["line"] for q in quarantined] == [1, 2]


def test_a_giant_line_is_put_aside_without_being_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfplay.inputs.rows.MAX_LINE", 1 << 12)
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines(FIRST, FIRST.replace(b"sky", b"s" * 9_000), LAST))
    conversations, quarantined, _ = read(path, tmp_path)
    assert [c.id for c in conversations] == ["first", "last"]
    assert quarantined[0]["line"] == 2
    assert quarantined[0]["reason"].startswith("line too long")


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + lines(FIRST, LAST),
        lines(FIRST, LAST).replace(b"\n", b"\r\n"),
        b"\n  \n" + FIRST + b"\n\n\r\n" + LAST + b"\n\n",
        lines(FIRST, LAST)[:-1],
        b"\t " + FIRST + b" \n" + LAST,
    ],
    ids=["BOM", "CRLF", "blank lines", "no newline at the end", "spaces around"],
)
def test_harmless_oddities_are_read_as_they_are_meant(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(data)
    conversations, quarantined, _ = read(path, tmp_path)
    assert [c.id for c in conversations] == ["first", "last"]
    assert quarantined == []


def many(count: int) -> bytes:
    """Rows that do not compress away, so that half of a packed file holds about half of them."""
    return lines(*(row(USER, {**ASSISTANT, "content": f"{i * 7919**9:x}"}, id=i) for i in range(count)))


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.ZstdCompressor(write_checksum=True).compress)],
    ids=["gz", "zst"],
)
@pytest.mark.parametrize("how", ["cut", "damaged"])
def test_a_broken_archive_gives_all_rows_before_the_break(name: str, pack: Any, how: str, tmp_path: Path) -> None:
    # zstd unpacks block by block (128 KiB), so there must be several.
    packed = pack(many(20_000))
    half = len(packed) // 2
    path = tmp_path / name
    path.write_bytes(packed[:half] if how == "cut" else packed[:half] + b"\xff" * 64 + packed[half + 64 :])
    conversations, quarantined, _ = read(path, tmp_path)
    assert len(conversations) > 5_000
    # A damaged stream may still unpack to other text for a while: those rows go aside, each by itself.
    sound = int(quarantined[0]["line"]) - 1
    assert [c.id for c in conversations[:sound]] == [str(i) for i in range(sound)]
    assert quarantined[-1]["reason"].startswith("damaged file")
    if how == "cut":
        assert len(quarantined) == 1
        assert quarantined[0]["line"] == len(conversations) + 1


def test_a_packed_file_may_consist_of_several_frames(tmp_path: Path) -> None:
    for name, pack in (("a.jsonl.gz", gzip.compress), ("b.jsonl.zst", zstandard.ZstdCompressor().compress)):
        path = tmp_path / name
        path.write_bytes(pack(lines(FIRST)) + pack(b"") + pack(lines(LAST)))
        assert [c.id for c in read(path, tmp_path)[0]] == ["first", "last"]


@pytest.mark.parametrize("name", ["plain.jsonl.gz", "plain.zst", "plain.parquet", "plain", "plain.json"])
def test_content_decides_not_the_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(lines(FIRST, LAST))
    assert [c.id for c in read(path, tmp_path)[0]] == ["first", "last"]


FOREIGN: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.jsonl", b"", "no rows"),
    "only blank lines": ("a.jsonl", b"\n \n\r\n", "no rows"),
    "only a BOM": ("a.jsonl", b"\xef\xbb\xbf", "no rows"),
    "empty gzip": ("a.jsonl.gz", gzip.compress(b""), "no rows"),
    "binary": ("a.jsonl", bytes(range(256)) * 20, "binary"),
    "binary in gzip": ("a.jsonl.gz", gzip.compress(bytes(range(256)) * 20), "binary"),
    "CSV": ("a.csv", b"prompt,response\nhi,ho\n", "CSV"),
    "zip": ("a.zip", b"PK\x03\x04rest", "zip archive"),
    "tar.gz": ("a.tar.gz", gzip.compress(b"x" * 257 + b"ustar" + b"\0" * 250), "tar"),
    "UTF-16": ("a.jsonl", FIRST.decode().encode("utf-16"), "iconv"),
    "Git LFS pointer": ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "web page": ("a.jsonl", b"<!DOCTYPE html>\n<html></html>", "web page"),
    "pickle": ("a.jsonl", b"\x80\x04\x95\x10\0\0\0\0\0\0\0", "pickle"),
    "Parquet cut off": ("a.parquet", b"PAR1 and no more", "not readable as Parquet"),
    "Arrow cut off": ("a.arrow", b"\xff\xff\xff\xff\x01", "not readable as Arrow"),
}


@pytest.mark.parametrize(("name", "data", "says"), FOREIGN.values(), ids=FOREIGN)
def test_a_file_we_cannot_read_is_one_clear_error(name: str, data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UsageError, match=says) as caught:
        read(path, tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_without_data_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_conversations(str(tmp_path / "none.jsonl"), Quarantine())
    (tmp_path / "README.md").write_text("a card")
    with pytest.raises(UsageError, match=r"no \.parquet"):
        read_conversations(str(tmp_path), Quarantine())
    with pytest.raises(UsageError, match="hf download nobody/nothing "):
        read_conversations("nobody/nothing", Quarantine())


def test_a_foreign_file_in_a_folder_is_told_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(FIRST))
    (tmp_path / "b.jsonl").write_bytes(b"PK\x03\x04rest")
    with pytest.raises(UsageError, match=r"b\.jsonl"):
        read_conversations(str(tmp_path), Quarantine())


def test_an_unreadable_part_of_a_parquet_file_costs_only_that_part(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    frame = pl.DataFrame([good(f"{i}") for i in range(3_000)])
    frame = frame.with_columns(noise=pl.Series([f"{i * 7919**9:x}" for i in range(3_000)]))
    frame.write_parquet(path, row_group_size=500)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2_000] = b"\xff" * 2_000
    path.write_bytes(data)
    conversations, quarantined, quarantine = read(path, tmp_path)
    assert conversations[0].id == "0"
    assert conversations[-1].id == "2999"
    assert quarantine.rows == 3_000
    assert len(conversations) == 3_000 - sum(entry["rows"] for entry in quarantined)
    assert len(conversations) > 500
    assert all(entry["reason"].startswith("damaged file") for entry in quarantined)


def test_bad_rows_of_parquet_are_named_by_their_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"id": [1, 2, 3], "prompt": ["a", "b", "c"], "response": ["x", None, "z"]}).write_parquet(path)
    conversations, quarantined, _ = read(path, tmp_path)
    assert [c.id for c in conversations] == ["1", "3"]
    assert [(entry["line"], json.loads(entry["row"])["prompt"]) for entry in quarantined] == [(2, "b")]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(["id", "messages", "conversations", "prompt", "response", "completion", "x"])
ROLES = st.sampled_from(["user", "assistant", "gpt", "human", "tool", "x"])
FIELDS = st.sampled_from(["role", "from", "content", "value", "tool_calls"])
MESSAGES = st.lists(st.dictionaries(FIELDS, ROLES | JSON_VALUES, max_size=4) | JSON_VALUES, max_size=4)
ROWS = JSON_VALUES | st.dictionaries(KEYS, MESSAGES | JSON_VALUES, max_size=4)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROWS.map(json.dumps).map(str.encode) | st.binary(max_size=40), max_size=6))
def test_any_value_on_any_line_is_read_or_put_aside(rows: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines(FIRST, *rows, LAST))
    expected = sum(1 for line in lines(FIRST, *rows, LAST).split(b"\n") if line.strip())
    conversations, quarantined, _ = read(path, tmp_path)
    assert len(conversations) + len(quarantined) == expected
    assert conversations[0].id == "first"
    assert conversations[-1].id.startswith("last")
    assert len({c.id for c in conversations}) == len(conversations)
    for conversation in conversations:
        json.dumps([*conversation.messages, conversation.extra], allow_nan=False, ensure_ascii=False).encode()
        assert any(m["role"] == "assistant" and m["content"].strip() for m in conversation.messages)
