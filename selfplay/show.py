"""What a person sees on the terminal: candidates of a site, the closing table, before and after.

All text from models and data goes through `printable`, since a terminal obeys what it prints.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from selfplay import summary
from selfplay.runs import Run
from selfplay.tables import context_columns
from selfplay.terminal import printable


def closing(run: Run, summed: Mapping[str, Any], examples: int = 0, console: Console | None = None) -> None:
    """The closing table, where to look, and before/after examples."""
    console = console or Console(stderr=True)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in summary.lines(summed):
        table.add_row(Text(name), Text(value))
    console.print(table)
    for number, example in enumerate(before_after(run, examples), 1):
        console.print()
        console.print(Text(f"{number}. {example['site_id']}", style="bold"))
        for name in ("user", "answer", "before", "after"):
            console.print(Text.assemble((f"   {name:7}", "dim"), printable(example[name], 400)))
    console.print()
    for name, what in (
        ("chosen.jsonl", "conversations with the chosen user turn, and prompt + completion for a user simulator"),
        ("rejected.parquet", "the other candidates with label, rule and evidence"),
        ("run.json", "configuration, versions, counts"),
    ):
        if (run.folder / name).exists():
            console.print(Text(f"{run.folder / name}  {what}"), soft_wrap=True)


def before_after(run: Run, count: int) -> list[dict[str, str]]:
    """Sites whose first sample was flagged and whose chosen turn is the most grounded, best first.

    `before` is what one sample would have given, `after` what was chosen.
    """
    if not count:
        return []
    columns = ["site_id", "sample", "temperature", "turn", "label", "genuine", "groundedness", "selected"]
    turns = pl.scan_parquet([run.path("turns", n) for n in run.parts("turns")]).select(columns)
    first = turns.filter(~pl.col("genuine")).group_by("site_id", maintain_order=True).first()
    found = (
        turns.filter("selected").join(first, on="site_id", suffix="_before").filter(pl.col("sample_before") == 0)
        .sort("groundedness", descending=True).head(count).collect()
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
        console.print(Text.assemble(("user    ", "dim"), printable(context["query"] or "", 600)))
        console.print(Text.assemble(("answer  ", "dim"), printable(context["answer"], 600)))
        rows = turns.filter(pl.col("site_id") == site["site_id"])
        for row in (rows.sort("rank") if ranked else rows).iter_rows(named=True):
            mark = ("* " if row["selected"] else "  ") if ranked else "  "
            told = f"T={row['temperature']:g} "
            if ranked:
                told += f"{row['label']}, p_genuine {row['p_genuine']:.2f}, groundedness {row['groundedness']:.2f} "
            console.print(Text.assemble(mark, (told, "cyan"), printable(row["turn"], 400)))
        console.print()
