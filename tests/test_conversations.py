"""Every format and shape gives the same conversations; ids are unique and stable; sites are where they belong."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from selfplay.core import Conversation, Origin
from selfplay.errors import UsageError
from selfplay.inputs.conversations import HashSet, UniqueIds, content_id, read_conversations, sites
from selfplay.inputs.quarantine import Quarantine

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Why is the sky blue?"}
ASSISTANT = {"role": "assistant", "content": "Air scatters short waves more. 空"}
TOOL = {"role": "tool", "content": "42"}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "f"}}]}
ROWS = [
    {"id": "a", "messages": [SYSTEM, USER, ASSISTANT], "score": 0.5, "tags": ["x", "y"]},
    {"id": "b", "messages": [USER, ASSISTANT, USER, ASSISTANT], "score": 1.5, "tags": []},
]


def jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def read(path: Path | str, **options: Any) -> list[Conversation]:
    quarantine = Quarantine(max_bad=0)
    conversations = list(read_conversations(str(path), quarantine, **options))
    assert quarantine.rows == len(conversations)
    return conversations


def read_rows(tmp_path: Path, *rows: Any) -> list[Conversation]:
    path = tmp_path / "in.jsonl"
    path.write_bytes(jsonl(list(rows)))
    return read(path)


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def parquet(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows).write_parquet(path)
    return path


def dataset_folder(at: Path) -> Path:
    parquet(at / "data" / "test-00000.parquet", ROWS[:1])
    parquet(at / "data" / "train-00000.parquet", ROWS[1:])
    write(at / "README.md", b"# card")
    parquet(at / "rejected.parquet", [{"turn": "not a conversation"}])
    return at


def saved_to_disk(at: Path) -> Path:
    """As `datasets.Dataset.save_to_disk` lays it out: an IPC stream per shard, and its metadata beside it."""
    at.mkdir()
    pl.DataFrame(ROWS).write_ipc_stream(at / "data-00000-of-00001.arrow")
    write(at / "cache-123.arrow", b"left over")
    write(at / "state.json", b"{}")
    write(at / "dataset_info.json", b"{}")
    return at


FORMATS: dict[str, Callable[[Path], Path]] = {
    "jsonl": lambda at: write(at / "a.jsonl", jsonl(ROWS)),
    "jsonl.gz": lambda at: write(at / "a.jsonl.gz", gzip.compress(jsonl(ROWS))),
    "jsonl.zst": lambda at: write(at / "a.jsonl.zst", zstandard.compress(jsonl(ROWS))),
    "JSON array": lambda at: write(at / "a.json", json.dumps(ROWS, indent=2).encode()),
    "JSON array on one line, gz": lambda at: write(
        at / "a.json.gz", gzip.compress(b"\xef\xbb\xbf" + json.dumps(ROWS).encode())
    ),
    "JSON array, an object per line": lambda at: write(
        at / "a.json", b"[" + b",\n".join(jsonl(ROWS).splitlines()) + b"]"
    ),
    "parquet": lambda at: parquet(at / "a[1]*.parquet", ROWS),
    "arrow file": lambda at: (pl.DataFrame(ROWS).write_ipc(at / "a.arrow"), at / "a.arrow")[1],
    "dataset folder": lambda at: dataset_folder(at / "dataset"),
    "save_to_disk": lambda at: saved_to_disk(at / "saved"),
    "folder of jsonl": lambda at: write(at / "d" / "train" / "a.jsonl", jsonl(ROWS)).parent.parent,
}


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_same_conversations(make: Callable[[Path], Path], tmp_path: Path) -> None:
    conversations = read(make(tmp_path))
    assert [c.id for c in conversations] == ["a", "b"]
    assert [list(c.messages) for c in conversations] == [row["messages"] for row in ROWS]
    assert [dict(c.extra) for c in conversations] == [{"score": r["score"], "tags": r["tags"]} for r in ROWS]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gz", "zst"])
def test_stdin_is_read_packed_or_not(pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(pack(jsonl(ROWS)))

    monkeypatch.setattr(sys, "stdin", Stdin)
    conversations = read("-")
    assert [c.id for c in conversations] == ["a", "b"]
    assert conversations[1].origin == Origin("stdin", 2)


def test_parquet_on_stdin_names_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = parquet(tmp_path / "a.parquet", ROWS).open("rb")

    monkeypatch.setattr(sys, "stdin", Stdin)
    with pytest.raises(UsageError, match="give the file's path"):
        read("-")


def test_two_formats_in_one_folder_are_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", ROWS)
    write(tmp_path / "a.jsonl", jsonl(ROWS))
    with pytest.raises(UsageError, match="Parquet and JSONL"):
        read(tmp_path)


def test_our_own_quarantine_in_the_folder_is_no_input(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", jsonl([*ROWS, None]))
    write(tmp_path / "quarantine.jsonl", b'{"file": "of an earlier run"}\n')
    with Quarantine(tmp_path / "bad.jsonl") as quarantine:
        assert len(list(read_conversations(str(tmp_path), quarantine))) == 2
    assert quarantine.rows == 3


SHAPES: dict[str, dict[str, Any]] = {
    "messages": {"messages": [USER, ASSISTANT]},
    "text parts": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "Why is "}, {"type": "text", "text": "the sky blue?"}],
            },
            ASSISTANT,
        ]
    },
    "null fields": {"messages": [{**USER, "name": None, "tool_calls": None}, ASSISTANT], "conversations": None},
    "ShareGPT": {
        "conversations": [
            {"from": "human", "value": USER["content"]},
            {"from": "gpt", "value": ASSISTANT["content"]},
        ]
    },
    "conversations with role": {"conversations": [USER, ASSISTANT]},
    "conversation": {"conversation": [USER, ASSISTANT]},
    "capitals": {"messages": [{**USER, "role": "User"}, {**ASSISTANT, "role": "ASSISTANT"}]},
    "prompt and response": {"prompt": USER["content"], "response": ASSISTANT["content"]},
    "prompt and completion": {"prompt": USER["content"], "completion": ASSISTANT["content"]},
    "TRL's lists": {"prompt": [USER], "completion": [ASSISTANT]},
    "list and string": {"prompt": [USER], "completion": ASSISTANT["content"]},
    "struct of lists": {
        "messages": {"role": ["user", "assistant"], "content": [USER["content"], ASSISTANT["content"]]}
    },
}


@pytest.mark.parametrize("row", SHAPES.values(), ids=SHAPES)
def test_every_shape_gives_the_same_messages_and_id(row: dict[str, Any], tmp_path: Path) -> None:
    (conversation,) = read_rows(tmp_path, row)
    assert list(conversation.messages) == [USER, ASSISTANT]
    assert conversation.id == content_id([USER, ASSISTANT])
    assert len(conversation.id) == 16


def test_the_first_shape_of_a_file_wins_where_a_row_has_two(tmp_path: Path) -> None:
    pair = {"prompt": "p", "response": "r"}
    both = {**pair, "messages": [USER, ASSISTANT]}
    _, second = read_rows(tmp_path, pair, both)
    assert [m["content"] for m in second.messages] == ["p", "r"]
    assert second.extra == {"messages": [USER, ASSISTANT]}
    (alone,) = read_rows(tmp_path, both)
    assert list(alone.messages) == [USER, ASSISTANT]
    assert alone.extra == pair


def test_a_row_of_another_shape_is_read_in_its_own(tmp_path: Path) -> None:
    conversations = read_rows(tmp_path, SHAPES["messages"], SHAPES["ShareGPT"], SHAPES["messages"])
    assert [list(c.messages) for c in conversations] == [[USER, ASSISTANT]] * 3


def test_tools_system_and_developer_stay_in_context(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]}
    result = {"role": "tool", "content": "42", "tool_call_id": "1"}
    developer = {"role": "developer", "content": "Use f."}
    (conversation,) = read_rows(tmp_path, {"messages": [developer, USER, call, result, ASSISTANT]})
    assert list(conversation.messages) == [developer, USER, {**call, "content": ""}, result, ASSISTANT]


def test_sharegpt_function_calls_become_tool_calls(tmp_path: Path) -> None:
    turns = [
        ("system", "Be brief."),
        ("human", "hi"),
        ("function_call", '{"name": "f", "arguments": {"x": 1}}'),
        ("observation", "42"),
        ("gpt", "It is 42."),
    ]
    (conversation,) = read_rows(tmp_path, {"conversations": [{"from": who, "value": what} for who, what in turns]})
    assert [m["role"] for m in conversation.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert conversation.messages[2]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"x": 1}}


def test_ids_are_strings_unique_and_never_change_a_first_given_one(tmp_path: Path) -> None:
    rows = [{"id": i, "messages": [USER, ASSISTANT]} for i in (7, "7", "x", "x~2", "x", "x", None, "")]
    rows.append({"conversation_id": "c", "messages": [USER, ASSISTANT]})
    content = content_id([USER, ASSISTANT])
    expected = ["7", "7~2", "x", "x~2", "x~3", "x~4", content, f"{content}~2", "c"]
    conversations = read_rows(tmp_path, *rows)
    assert [c.id for c in conversations] == expected
    assert conversations[-1].extra == {"conversation_id": "c"}
    assert [c.id for c in read(tmp_path / "in.jsonl", unique_ids=False)][:3] == ["7", "7", "x"]


def test_an_id_that_is_the_same_everywhere_does_not_take_quadratic_time() -> None:
    ids = UniqueIds()
    assert [ids.claim("x") for _ in range(50_000)][-1] == "x~50000"


@given(st.lists(st.text(alphabet="a~23", max_size=4), max_size=40))
def test_ids_never_collide(names: list[str]) -> None:
    ids, again = UniqueIds(), UniqueIds()
    given_out = [ids.claim(name) for name in names]
    assert len(set(given_out)) == len(names)
    assert all(out == name or out.startswith(f"{name}~") for out, name in zip(given_out, names, strict=True))
    assert given_out == [again.claim(name) for name in names]


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 20), max_size=200))
def test_the_hash_set_is_a_set(keys: list[int]) -> None:
    ours, real = HashSet(), set()
    ours.RECENT = 8  # type: ignore[misc]
    for key in keys:
        assert ours.add(key) == (key not in real)
        real.add(key)
    assert len(ours) == len(real)


NAMES = {"s": SYSTEM, "u": USER, "a": ASSISTANT, "t": TOOL, "c": CALL, "e": {"role": "assistant", "content": " "}}
BOTH = {**CALL, "content": "Let me look."}


@pytest.mark.parametrize(
    ("spelled", "ends"),
    [
        ("ua", [2]),
        ("suaua", [3, 5]),
        ("uau", [2]),
        ("a", [1]),
        ("aua", [1, 3]),
        ("uaaua", [3, 5]),  # consecutive answers are one turn
        ("ucta", [4]),
        ("uacta", [5]),  # said before calling: the turn goes on
        ("uauct", [2]),  # cut off while a tool works: the user could still have spoken before
        ("uaue", [2]),
        ("uasua", [2, 5]),
    ],
)
def test_sites_are_where_a_user_could_speak(spelled: str, ends: list[int]) -> None:
    conversation = Conversation("x", tuple(NAMES[letter] for letter in spelled), Origin("f", 1))
    assert [site.end for site in sites([conversation], "all")] == ends
    assert [site.end for site in sites([conversation], "last")] == ends[-1:]


def test_an_answer_that_also_calls_a_tool_is_a_site_only_before_a_user() -> None:
    def ends(*messages: dict[str, Any]) -> list[int]:
        return [site.end for site in sites([Conversation("x", messages, Origin("f", 1))], "all")]

    assert ends(USER, BOTH, USER) == [2]
    assert ends(USER, BOTH) == []
    assert ends(USER, BOTH, TOOL, ASSISTANT) == [4]


def test_sites_are_numbered_over_the_whole_input_and_named_by_their_message(tmp_path: Path) -> None:
    conversations = read_rows(tmp_path, *ROWS)
    found = list(sites(conversations, "all"))
    assert [(site.ordinal, site.site_id) for site in found] == [(0, "a#2"), (1, "b#1"), (2, "b#3")]
    assert [site.site_id for site in sites(conversations)] == ["a#2", "b#3"]
    with pytest.raises(UsageError, match="last or all"):
        list(sites(conversations, "first"))  # type: ignore[arg-type]


def test_values_of_parquet_come_in_json_types(tmp_path: Path) -> None:
    frame = pl.DataFrame([{"messages": [USER, ASSISTANT]}]).with_columns(
        when=pl.datetime(2024, 5, 1), image=pl.lit(b"\xff"), missing=pl.lit(float("nan")), many=pl.lit(2**40)
    )
    frame.write_parquet(tmp_path / "a.parquet")
    (conversation,) = read(tmp_path / "a.parquet")
    assert conversation.extra == {"when": "2024-05-01T00:00:00", "image": "/w==", "missing": None, "many": 2**40}


def test_large_parquet_is_read_in_slices_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfplay.inputs.rows.SLICE_BYTES", 50_000)
    frame = pl.DataFrame([{"id": i, "messages": [USER, ASSISTANT]} for i in range(3_000)])
    frame.write_parquet(tmp_path / "a.parquet", row_group_size=700)
    conversations = read(tmp_path / "a.parquet")
    assert [c.id for c in conversations] == [str(i) for i in range(3_000)]
    assert [c.origin.line for c in conversations] == list(range(1, 3_001))


STREAM = """
import resource, sys
from selfplay.inputs.conversations import read_conversations, sites
from selfplay.inputs.quarantine import Quarantine

def peak():
    # VmHWM and not ru_maxrss: the latter begins with what the parent held when it forked.
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

count = 0
for site in sites(read_conversations(sys.argv[1], Quarantine()), "all"):
    count += 1
    if count == 5_000:
        early = peak()
print(count, (peak() - early) // 1024)
"""


def stream(path: Path, count: int) -> tuple[int, int]:
    """Sites read in a process of its own, and the growth of its peak memory (MiB) after the first 5,000."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for i in range(count):
            messages = [USER, {**ASSISTANT, "content": f"{i} " + "word " * 40}]
            file.write(json.dumps({"messages": messages, "n": i}).encode() + b"\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", STREAM, str(path)], capture_output=True, text=True, check=True, env=environment
    )
    found, growth = done.stdout.split()
    return int(found), int(growth)


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")


@needs_proc
def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    # 100,000 conversations as Python objects would be over 100 MiB.
    found, growth = stream(tmp_path / "many.jsonl.gz", 100_000)
    assert found == 100_000
    assert growth < 20


@needs_proc
@pytest.mark.trial
def test_a_million_conversations_stream(tmp_path: Path) -> None:
    found, growth = stream(tmp_path / "million.jsonl.gz", 1_000_000)
    assert found == 1_000_000
    assert growth < 60
