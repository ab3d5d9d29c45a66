"""A file that is one JSON array is read element by element, and a bad element costs only itself."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.inputs.array import array_rows
from selfplay.inputs.formats import Source, open_source

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab"\\\\[]{},\n空'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def rows(data: bytes) -> list[tuple[int, Any, str]]:
    return [(row.line, row.value, (row.problem or "").split(": ")[0]) for row in array_rows(io.BytesIO(data))]


@given(values=st.lists(VALUES, max_size=5), indent=st.sampled_from([None, 0, 2]), chunk=st.integers(1, 9))
def test_elements_come_as_they_are_wherever_the_chunks_end(values: list[Any], indent: int | None, chunk: int) -> None:
    for ensure_ascii in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("selfplay.inputs.array.CHUNK", chunk)
            found = rows(json.dumps(values, indent=indent, ensure_ascii=ensure_ascii).encode())
        assert found == [(number, value, "") for number, value in enumerate(values, 1)]


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (b"{'a': 1}", "broken JSON"),
        (b'{"a": NaN}', "not a finite number"),
        (b'{"a": 1, "a": 2}', "duplicate key"),
        (rb'{"a": "\ud800"}', "lone surrogate"),
        (b"[" * 300 + b"]" * 300, "nested too deeply"),
        (b"", "broken JSON"),
        (b"{a: [1, ], 2}", "broken JSON"),
    ],
)
def test_a_bad_element_costs_only_itself(bad: bytes, kind: str) -> None:
    found = rows(b'[{"x": 1}, ' + bad + b', {"x": 2}]')
    assert found[0] == (1, {"x": 1}, "")
    assert found[1] == (2, None, kind)
    assert found[-1][1] == {"x": 2}


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'[{"x": 1}, {"x": ', "broken JSON"),
        (b'[{"x": 1}, {"x": "no end}]', "broken JSON"),
        (b'[{"x": 1}', "broken JSON"),
        (b'[{"x": 1}, ', "broken JSON"),
        (b'[{"x": 1}] {"x": 2}', "broken JSON"),
        (b'[{"x": 1}} {"x": 2}]', "broken JSON"),
        (b'[{"x": 1}, "\xff"]', "not UTF-8"),
    ],
)
def test_what_comes_before_a_break_is_read(data: bytes, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfplay.inputs.array.CHUNK", 4)
    assert rows(data) == [(1, {"x": 1}, ""), (2, None, kind)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"[]", "json array"),
        (b'[{"a": 1}]', "json array"),
        (b'\xef\xbb\xbf [\n {"a": 1}\n]\n', "json array"),
        (b'[{"a": 1},\n{"a": 2}]', "json array"),
        (b'[{"a": 1}\n,{"a": 2}\n]', "json array"),
        (b'[{\n"a": 1\n}]', "json array"),
        (b'[1, 2]\n{"a": 1}\n', "jsonl"),
        (b'[{"a": 1}]\n{"a": 1}\n', "jsonl"),
        (b'[{"a": oops\n{"a": 1}\n', "jsonl"),
        (b"[[[[[", "jsonl"),
        (b"[1, 2]", "jsonl"),
    ],
)
def test_an_array_is_told_from_rows_that_are_lists(data: bytes, expected: str, tmp_path: Any) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    kind, stream = open_source(Source("a", path))
    stream.close()
    assert kind == expected
