"""`selfplay inspect`: tell what is in a file of conversations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from selfplay.commands import options

EPILOG = "Example: selfplay inspect conversations.jsonl.gz --quarantine bad.jsonl"


@click.command(name="inspect", epilog=EPILOG)
@click.argument("path", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@click.option("--quarantine", "quarantine_path", metavar="FILE", help="Write the bad rows there, with reasons.")
@options.max_bad
def command(path: str, as_json: bool, quarantine_path: str | None, max_bad: str | None) -> None:
    """Tell what is in FILE: conversations, sites, shapes, roles, lengths, problems.

    FILE is JSONL (also .gz, .zst), Parquet, a Hugging Face dataset folder, or - for stdin. Nothing is written
    unless --quarantine asks for it.
    """
    from selfplay.inputs.inspection import inspect_conversations
    from selfplay.inputs.quarantine import Quarantine

    with Quarantine(quarantine_path, max_bad, source=path) as quarantine:
        found = inspect_conversations(path, quarantine)
        if as_json:
            import json

            click.echo(json.dumps(found, indent=2))
        else:
            show(found)
        if max_bad is not None:
            quarantine.check()


def show(found: dict[str, Any]) -> None:
    """A table on a terminal, `name: value` lines elsewhere. Text from the file is escaped."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from selfplay.terminal import printable

    lines = [(name, printable(value)) for name, value in _lines(found)]
    problems = [
        (_where(problem, found["path"]), printable(str(problem["reason"]), 200)) for problem in found["first_problems"]
    ]
    console = Console()
    if not console.is_terminal:
        for name, value in lines + [(f"problem at {where}", reason) for where, reason in problems]:
            click.echo(f"{name}: {value}")
        return
    table = Table(box=box.SIMPLE_HEAD, show_header=False, title=Text(printable(found["path"])), title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines:
        table.add_row(Text(name), Text(value))
    console.print(table)
    if problems:
        bad = Table(box=box.SIMPLE_HEAD, show_header=False, title="first problem of each kind", title_justify="left")
        bad.add_column(style="red", no_wrap=True)
        bad.add_column(overflow="fold")
        for where, reason in problems:
            bad.add_row(Text(where), Text(reason))
        console.print(bad)


def _where(problem: dict[str, Any], path: str) -> str:
    """`line 7`; in a folder also which file."""
    from selfplay.terminal import printable

    inside = "" if problem["file"] in (path, "stdin") else " of " + printable(problem["file"][len(path) :].lstrip("/"))
    return f"line {problem['line']:,}{inside}"


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    def listed(counts: dict[str, int], limit: int = 12) -> str:
        shown = [f"{name} {count:,}" for name, count in list(counts.items())[:limit]]
        return ", ".join(shown + ([f"and {len(counts) - limit} more"] if len(counts) > limit else [])) or "none"

    def spread(values: dict[str, int]) -> str:
        return f"{values['min']:,} to {values['max']:,}, median {values['median']:,}" if values else "none"

    files = ", ".join(f"{kind} × {count:,}" if count > 1 else kind for kind, count in found["files"].items())
    shapes = found["shapes"]
    bad = f"{found['bad']:,}" + (f" ({listed(found['bad_by_reason'])})" if found["bad"] else "")
    lines = [
        ("format", files + (f"; {listed(shapes) if len(shapes) > 1 else next(iter(shapes))}" if shapes else "")),
        ("rows", f"{found['rows']:,}"),
        ("bad rows", bad),
        ("conversations", f"{found['conversations']:,}"),
    ]
    if not found["conversations"]:
        return lines
    length = found["characters"]
    lines += [
        ("sites, --turns last", f"{found['sites']['last']:,}"),
        ("sites, --turns all", f"{found['sites']['all']:,}"),
        ("roles", listed(found["roles"])),
        ("turns per conversation", spread(found["turns"])),
        ("characters, conversation", spread(length["conversation"])),
        ("characters, user turn", spread(length["user"])),
        ("characters, assistant turn", spread(length["assistant"])),
        ("scripts of the users", listed(found["scripts"])),
        ("other columns", listed_names(found["extra_columns"])),
        ("repeated ids", f"{found['duplicate_ids']:,}"),
        ("repeated conversations", f"{found['duplicate_conversations']:,}"),
    ]
    if found["tool_calls"]:
        lines.insert(7, ("messages with tool calls", f"{found['tool_calls']:,}"))
    return lines


def listed_names(names: Iterable[str], limit: int = 20) -> str:
    """Column names, each cut at 40 characters."""
    shown = [name if len(name) <= 40 else name[:39] + "…" for name in names]
    return ", ".join(shown[:limit] + ([f"and {len(shown) - limit} more"] if len(shown) > limit else [])) or "none"
