"""What a person sees on the terminal: candidates of a site, the closing table, before and after.

All text from models and data goes through `printable`, since a terminal obeys what it prints.
"""

from __future__ import annotations

import json

import polars as pl
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from selfplay import summary
from selfplay.runs import Run
from selfplay.tables import context_columns
from selfplay.terminal import one_line, printable


def closing(run: Run, examples: int = 0, console: Console | None = None) -> None:
    """The closing table, before/after examples, and where to look."""
    console = console or wide_console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in summary.lines(run.record["summary"]):
        table.add_row(Text(printable(name)), Text(printable(value)))
    console.print(table)
    for number, example in enumerate(before_after(run, examples), 1):
        console.print()
        console.print(Text(f"{number}. {printable(example['site_id'])}", style="bold"))
        for name in ("user", "answer", "before", "after"):
            console.print(Padding(Text.assemble((f"{name:7}", "dim"), one_line(example[name])), (0, 0, 0, 3)))
    console.print()
    for name, what in (
        ("chosen.jsonl", "conversations with the chosen user turn; prompt and completion for a user simulator"),
        ("pairs.jsonl", "prompt, chosen and rejected turn, for preference training of a user simulator"),
        ("rejected.parquet", "the other candidates with label, rule and evidence"),
        ("turns.jsonl", "the sampled turns, for `selfplay filter` and `selfplay rank`"),
        ("quarantine.jsonl", "rows that could not be used, with file, line and reason"),
        ("run.json", "configuration, versions, counts"),
    ):
        path = run.folder / name
        if path.exists() and path.stat().st_size:
            console.print(Text(f"{printable(str(path))}  {what}"), soft_wrap=True)


def wide_console() -> Console:
    """Standard error; where it is no terminal, wide enough that no line of the table breaks."""
    console = Console(stderr=True)
    return console if console.is_terminal else Console(stderr=True, width=160)


def before_after(run: Run, count: int) -> list[dict[str, str]]:
    """Sites with a chosen turn, the most grounded first: those whose first sample was flagged, then others.

    `before` is the first sample, what one would have got without selection; `after` is what was chosen.
    """
    if not count or not run.parts("turns"):
        return []
    columns = ["site_id", "sample", "temperature", "turn", "label", "genuine", "groundedness", "selected"]
    turns = pl.scan_parquet([run.path("turns", n) for n in run.parts("turns")]).select(columns)
    first = turns.group_by("site_id", maintain_order=True).first()
    found = (
        turns.filter("selected").join(first, on="site_id", suffix="_before").filter(~pl.col("selected_before"))
        .sort("genuine_before", "groundedness", descending=[False, True])
        .unique("site_id", keep="first", maintain_order=True).head(count).collect()
    )  # fmt: skip
    sites = pl.scan_parquet([run.path("sites", n) for n in run.parts("turns")])
    contexts = dict(
        sites.filter(pl.col("site_id").is_in(found["site_id"].implode()))
        .select("site_id", "messages")
        .collect()
        .iter_rows()
    )
    examples = []
    for row in found.iter_rows(named=True):
        context = context_columns(json.loads(contexts[row["site_id"]]))
        examples.append(
            {
                "site_id": row["site_id"],
                "user": context["query"] or "",
                "answer": context["answer"],
                "before": f"[{row['label_before']}] {row['turn_before']}",
                "after": f"[groundedness {row['groundedness']:.2f}] {row['turn']}",
            }
        )
    return examples


def candidates(turns: pl.DataFrame, sites: pl.DataFrame, console: Console | None = None) -> None:
    """Each site with its candidates, the best first where they are ranked."""
    console = console or Console()
    ranked = "rank" in turns.columns
    for site in sites.iter_rows(named=True):
        context = context_columns(json.loads(site["messages"]))
        console.print(Text(printable(site["site_id"]), style="bold"))
        console.print(Text.assemble(("user    ", "dim"), one_line(context["query"] or "", 600)))
        console.print(Text.assemble(("answer  ", "dim"), one_line(context["answer"], 600)))
        rows = turns.filter(pl.col("site_id") == site["site_id"])
        for row in (rows.sort("rank") if ranked else rows).iter_rows(named=True):
            mark = ("* " if row["selected"] else "  ") if ranked else "  "
            told = f"T={row['temperature']:g} "
            if ranked:
                told += f"{row['label']}, p_genuine {row['p_genuine']:.2f}, groundedness {row['groundedness']:.2f} "
            console.print(Text.assemble(mark, (told, "cyan"), one_line(row["turn"], 400)))
        console.print()
