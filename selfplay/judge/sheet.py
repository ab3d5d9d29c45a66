"""Blinded sheets for people: turns in random order under opaque ids, as CSV or one HTML file, and read back.

A sheet tells nothing of who wrote a turn, how it was sampled or what anybody said of it. Its ids are hashes of context
and turn, so that they can be found again in the same turns and equal turns are judged once.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.resources
import io
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from filters.labels import PRECEDENCE
from selfplay.atomic import replacing
from selfplay.errors import UsageError
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.turnrows import iter_turn_rows
from selfplay.judge.panel import conversation, without_marks
from selfplay.judge.raters import content_key

COLUMNS = ("id", "conversation", "turn", "label", "groundedness", "comment")
ADDED = ("label", "groundedness", "annotator", "comment")
CELL = 30_000
"""Characters a cell may hold; spreadsheets cut at 32,767."""
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""How a cell begins that a spreadsheet may take for a formula (OWASP, CSV Injection)."""


def opaque_id(values: dict[str, Any]) -> str:
    """12 hex digits that only context and turn decide."""
    return hashlib.sha256(f"sheet {content_key(values)}".encode()).hexdigest()[:12]


def draw(source: str, quarantine: Quarantine, n: int | None, seed: int) -> list[dict[str, Any]]:
    """At most `n` different turns in random order: `id, messages, turn`.

    The order and the choice depend on the seed and on what the turns are, not on their order in the file.
    """
    items: dict[str, dict[str, Any]] = {}
    for table in iter_turn_rows(source, quarantine):
        for values in table.iter_rows(named=True):
            messages = conversation(values)
            items.setdefault(opaque_id(values), {"messages": messages, "turn": values["turn"]})
    quarantine.check()
    names = sorted(items)
    random.Random(seed).shuffle(names)
    return [{"id": name, **items[name]} for name in names[:n]]


def write(items: Sequence[dict[str, Any]], out: str) -> None:
    """Writes a sheet, as its suffix says; it appears whole or not at all.

    Raises:
        UsageError: Another suffix, or a place that cannot be written.
    """
    make = as_csv if kind_of(out) == ".csv" else as_html
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(out)) as place:
            place.write_bytes(make(items))
    except OSError as error:
        raise UsageError(f"{out}: cannot write it: {error.strerror}") from None


def kind_of(out: str) -> str:
    """The suffix that says which kind of sheet is wanted.

    Raises:
        UsageError: It is neither.
    """
    suffix = Path(out).suffix.lower()
    if suffix not in (".csv", ".html"):
        raise UsageError(f"-o {out}: give a name that ends in .csv or .html")
    return suffix


def as_csv(items: Sequence[dict[str, Any]]) -> bytes:
    """The sheet as CSV; with a byte order mark, by which spreadsheets know UTF-8."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for item in items:
        writer.writerow([item["id"], cell(transcript(item["messages"])), cell(item["turn"]), "", "", ""])
    return b"\xef\xbb\xbf" + text.getvalue().encode("utf-8", "replace")


def transcript(messages: Sequence[dict[str, Any]]) -> str:
    """A conversation as one text."""
    return "\n\n".join(f"[{message.get('role')}]\n{content_of(message)}" for message in messages)


def content_of(message: dict[str, Any]) -> str:
    """A message's text, with the tools it calls."""
    calls = message.get("tool_calls")
    text = str(message.get("content") or "")
    return f"{text}\n(calls {json.dumps(calls, ensure_ascii=False)})".strip() if calls else text


def cell(text: str) -> str:
    """Text that a spreadsheet shows and never computes: a formula gets an apostrophe, NULs go, the middle may."""
    text = text.replace("\0", "\\0")
    if len(text) > CELL:
        text = f"{text[: CELL // 2]}\n\n[… {len(text) - CELL:,} characters left out …]\n\n{text[-CELL // 2 :]}"
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text


def as_html(items: Sequence[dict[str, Any]], marks: Mapping[str, Mapping[str, Any]] | None = None) -> bytes:
    """The sheet as one page that needs nothing else: no address is loaded, and all text goes in as text.

    Args:
        marks: By id, of a server that the page gets these from and sends every new one to, at `mark` beside it.
    """
    shown = [
        {
            "id": item["id"],
            "turn": item["turn"],
            "messages": [{"role": str(m.get("role")), "content": content_of(m)} for m in item["messages"]],
        }
        for item in items
    ]
    data = {
        "items": shown,
        "labels": [{"name": label.value, "definition": label.definition} for label in PRECEDENCE],
        "rubric": rubric(),
        "marks": None if marks is None else list(marks.items()),
    }
    # Inside a script element only `<` could end it; U+2028 and lone surrogates go as escapes.
    text = json.dumps(data, ensure_ascii=True).replace("<", "\\u003c")
    page = importlib.resources.files("selfplay.judge").joinpath("sheet.html").read_text("utf-8")
    head, mark, tail = page.partition("{{data}}")
    assert mark  # noqa: S101 - ours, beside this file
    head = head.replace("{{connect}}", "'none'" if marks is None else "'self'")
    return f"{head}{text}{tail}".encode()


def rubric() -> str:
    """The rubric as judges read it."""
    return importlib.resources.files("filters").joinpath("rubric.md").read_text("utf-8")


def annotated(
    source: str, quarantine: Quarantine, marks: dict[str, dict[str, Any]], annotator: str
) -> Iterator[pl.DataFrame]:
    """The rows of the turns that were marked, with `label, groundedness, annotator, comment`.

    Raises:
        UsageError: The sheet has ids that no turn of `source` has.
    """
    found: set[str] = set()
    types = {name: pl.Int64() if name == "groundedness" else pl.String() for name in ("row", *ADDED)}
    for table in iter_turn_rows(source, quarantine):
        rows = []
        for values in table.iter_rows(named=True):
            name = opaque_id(values)
            if name not in marks:
                continue
            found.add(name)
            row = without_marks(json.loads(values["row"]))
            if "genuine" in row:
                row["genuine"] = marks[name]["label"] == PRECEDENCE[-1].value
            rows.append({"row": json.dumps(row), "annotator": annotator, **marks[name]})
        yield pl.DataFrame(rows, schema=pl.Schema(types))
    quarantine.check()
    if lost := [name for name in marks if name not in found]:
        raise UsageError(f"{len(lost)} ids of the sheet are no turn of {source}, e.g. {lost[0]}; give the same turns")
