"""Sheets for people: blinded, safe to open, and read back as they were filled in."""

from __future__ import annotations

import csv
import html.parser
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from filters.labels import PRECEDENCE
from selfplay.cli import cli
from selfplay.errors import UsageError
from selfplay.judge.sheet import CELL, FORMULA, as_csv, as_html, cell

SECRET = {"model": "Hidden-7B", "temperature": 0.77, "label": "generic", "judge": "gpt-hidden", "p_genuine": 0.1234}
NAMES = [label.value for label in PRECEDENCE]


def turns(tmp_path: Path, count: int = 12) -> str:
    rows = [
        {
            "id": f"Hidden-7B/t0.77/{n}",
            "messages": [{"role": "user", "content": f"q{n // 4}"}, {"role": "assistant", "content": "a"}],
            "turn": f"turn {n}",
            **SECRET,
        }
        for n in range(count)
    ]
    path = tmp_path / "turns.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(*call: str) -> str:
    done = CliRunner().invoke(cli, ["annotate", *call], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stderr


def sheet(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline="")))


def fill(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> str:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


@pytest.mark.parametrize("name", ["sheet.csv", "sheet.html"])
def test_a_sheet_tells_nothing_of_who_wrote_a_turn_or_what_was_said_of_it(tmp_path: Path, name: str) -> None:
    run(turns(tmp_path), "-o", str(tmp_path / name))
    text = (tmp_path / name).read_text("utf-8")
    for secret in ("Hidden", "0.77", "gpt-hidden", "0.1234"):
        assert secret not in text
    assert "turn 11" in text


def test_a_comment_that_looks_like_a_formula_comes_back_as_written(tmp_path: Path) -> None:
    source = turns(tmp_path)
    run(source, "-o", str(tmp_path / "s.csv"))
    rows = sheet(tmp_path / "s.csv")
    rows[0] |= {"label": "1", "comment": "'=1+1"}  # as the page saves it
    filled = fill(tmp_path / "f.csv", rows)
    run("--read", filled, "--turns", source, "-o", str(tmp_path / "a.jsonl"), "--annotator", "ana")
    assert json.loads((tmp_path / "a.jsonl").read_text())["comment"] == "=1+1"


def test_the_order_is_the_seeds_and_not_the_files(tmp_path: Path) -> None:
    source, orders = turns(tmp_path), []
    for seed in ("0", "0", "1"):
        run(source, "-o", str(tmp_path / "s.csv"), "--seed", seed)
        orders.append([row["turn"] for row in sheet(tmp_path / "s.csv")])
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])
    lines = Path(source).read_text().splitlines()
    Path(source).write_text("\n".join(lines[::-1]) + "\n")
    run(source, "-o", str(tmp_path / "s.csv"))
    assert [row["turn"] for row in sheet(tmp_path / "s.csv")] == orders[0]


@given(st.lists(st.text(), min_size=1, max_size=3))
def test_no_cell_is_a_formula_and_none_is_lost(texts: list[str]) -> None:
    hostile = [f"{mark}{text}" for mark in (*FORMULA, " =", "") for text in texts]
    data = as_csv([{"id": "0", "messages": [{"role": "user", "content": text}], "turn": text} for text in hostile])
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    assert len(rows) == len(hostile) + 1
    for row, text in zip(rows[1:], hostile, strict=True):
        assert len(row) == 6
        assert not row[2].lstrip(" ").startswith(FORMULA)
        assert (
            row[2].removeprefix("'") == text.replace("\0", "\\0").removeprefix("'").encode("utf-8", "replace").decode()
        )


def test_a_cell_holds_what_a_spreadsheet_can() -> None:
    long = cell("a" * CELL + "b" * CELL)
    assert len(long) < 32_767
    assert long.startswith("aaa")
    assert long.endswith("bbb")
    assert "30,000 characters left out" in long


class Page(html.parser.HTMLParser):
    """Tags and scripts as a browser sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.data = ""
        self._in_data = False
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._in_data = ("id", "data") in attrs
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if self._in_data:
            self.data += data

    def handle_endtag(self, tag: str) -> None:
        self._in_data = False


@given(st.text())
def test_the_page_takes_text_as_text(text: str) -> None:
    hostile = f"</script><img src=x onerror=alert(1)><!--{text}{{{{data}}}}\u2028"
    item = {"id": "0", "messages": [{"role": "</script>", "content": hostile}], "turn": hostile}
    page, plain = Page(), Page()
    page.feed(as_html([item]).decode())
    plain.feed(as_html([]).decode())
    assert page.tags == plain.tags
    assert page.addresses == []
    assert json.loads(page.data)["items"][0]["turn"] == hostile


def test_filled_in_and_read_back(tmp_path: Path) -> None:
    source = turns(tmp_path)
    run(source, "-o", str(tmp_path / "s.csv"), "--n", "9")
    rows = sheet(tmp_path / "s.csv")
    wanted = {}
    for number, row in enumerate(rows[:-1]):
        written = [str(number + 1), NAMES[number], NAMES[number].replace("_", " ").title(), f"{number + 1}.0"][
            number % 4
        ]
        row |= {"label": written, "groundedness": str(number % 4), "comment": "fine" if number == 0 else ""}
        wanted[row["turn"]] = (NAMES[number], number % 4)
    for delimiter in ",;\t":
        filled = fill(tmp_path / "filled.csv", rows, delimiter)
        told = run("--read", filled, "--turns", source, "-o", str(tmp_path / "a.jsonl"), "--annotator", "ana")
        assert "8 turns labelled by ana, 1 left empty; 8 rows" in told
        found = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
        assert {row["turn"]: (row["label"], row["groundedness"]) for row in found} == wanted
        assert {row["annotator"] for row in found} == {"ana"}
        assert not {"judge", "rule", "reason"} & set(found[0])  # they told of another label
        assert [row["id"] for row in found] == sorted((row["id"] for row in found), key=lambda i: int(i.split("/")[2]))


def test_what_the_page_saves_is_read_back(tmp_path: Path) -> None:
    source = turns(tmp_path)
    run(source, "-o", str(tmp_path / "s.html"))
    page = Page()
    page.feed((tmp_path / "s.html").read_text())
    items = json.loads(page.data)["items"]
    marks: list[dict[str, Any]] = [{"id": item["id"], "label": "", "groundedness": "", "comment": ""} for item in items]
    marks[0] |= {"label": "generic", "groundedness": 1}
    (tmp_path / "m.json").write_text(json.dumps({"marks": marks}))
    run("--read", str(tmp_path / "m.json"), "--turns", source, "-o", str(tmp_path / "a.jsonl"), "--annotator", "ana")
    [row] = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert (row["turn"], row["label"], row["groundedness"]) == (items[0]["turn"], "generic", 1)


BAD = [
    ({"label": "10"}, "row 2: label '10' is none of 1-9"),
    ({"label": "folow_up"}, "row 2: label 'folow_up' is none of 1-9"),
    ({"label": "1", "groundedness": "4"}, "row 2: groundedness '4' is none of 0, 1, 2, 3"),
    ({"groundedness": "2"}, "groundedness without a label"),
    ({"id": "", "label": "1"}, "row 2: no id"),
    ({"id": "0123456789ab", "label": "1"}, "1 ids of the sheet are no turn of"),
    ({}, "nothing is filled in"),
]


@pytest.mark.parametrize(("change", "what"), BAD)
def test_a_bad_cell_is_named(tmp_path: Path, change: dict[str, str], what: str) -> None:
    source = turns(tmp_path)
    run(source, "-o", str(tmp_path / "s.csv"))
    rows = sheet(tmp_path / "s.csv")
    rows[0] |= change
    call = ["annotate", "--read", fill(tmp_path / "f.csv", rows), "--turns", source, "-o", str(tmp_path / "a.jsonl")]
    done = CliRunner().invoke(cli, [*call, "--annotator", "ana"])
    assert isinstance(done.exception, UsageError)
    assert what in str(done.exception)
    assert "\n" not in str(done.exception)
    assert not (tmp_path / "a.jsonl").exists()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\xff\xfea\x00", "not UTF-8"),
        (b"a,b\n1,2\n", "no columns `id` and `label`"),
        (b"", "no columns"),
        (b'{"marks": 3}', "not what an HTML sheet saves"),
        (b"[", "broken JSON"),
        (b'id,label\n"x', "broken CSV"),
    ],
)
def test_another_file_as_sheet_is_one_line(tmp_path: Path, data: bytes, what: str) -> None:
    (tmp_path / "s").write_bytes(data)
    call = [
        "annotate",
        "--read",
        str(tmp_path / "s"),
        "--turns",
        turns(tmp_path),
        "-o",
        str(tmp_path / "a"),
        "--annotator",
        "x",
    ]
    done = CliRunner().invoke(cli, call)
    assert isinstance(done.exception, UsageError)
    assert what in str(done.exception)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (["-o", "s.csv"], "which turns?"),
        (["{turns}", "-o", "s.txt"], "ends in .csv or .html"),
        (["{turns}", "-o", "s.csv", "--annotator", "x"], "go with --read"),
        (["--read", "x.csv", "-o", "a.jsonl"], "also takes --turns"),
        (["--read", "x.csv", "--turns", "{turns}", "-o", "a.jsonl", "--annotator", " "], "--annotator NAME"),
        (["--read", "none.csv", "--turns", "{turns}", "-o", "a.jsonl", "--annotator", "x"], "none.csv: No such file"),
    ],
)
def test_a_wrong_call_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: list[str], what: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["annotate", *(part.replace("{turns}", turns(tmp_path)) for part in call)])
    assert isinstance(done.exception, UsageError)
    assert what in str(done.exception)
