"""The closing table of a cleaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from selfplay.cleaning.folder import REPLACEMENTS
from selfplay.showing.candidates import wide_console
from selfplay.terminal import one_line, printable

MOST_RULES = 3
"""So many rules are named that made turns bad."""
PASSED = "no rule fired"
WIDTH = 28
"""Characters shown of a source's name."""
MOST_SOURCES = 4
"""Columns of the table of labels beside the one of all."""
HONEST = (
    "The rules were learned from sampled turns of two small models and misjudge some real ones: of 211 turns that",
    "people wrote the text rules call 12 % [8, 17] malformed, planned, leaked or restated (malformed alone 0.5 %",
    "[0.1, 2.6]), the full ones 5 % [3, 9], most of them wrongly. Look at what is called bad before you train.",
)
FILES = {
    "conversations.jsonl": "what stays: messages, and user_turns with label, rule, evidence",
    "dropped.jsonl": "what does not, with dropped_for",
    f"{REPLACEMENTS}/": "the run that drew other turns, with all candidates",
    "quarantine.jsonl": "rows that could not be read, with file, line and reason",
    "run.json": "settings, versions, all counts",
}


def closing(folder: Path, record: Mapping[str, Any], console: Console | None = None) -> None:
    """Figures, labels before and after, what was learned about the rules, and where to look."""
    console = console or wide_console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in lines(record):
        table.add_row(Text(name), Text(value))
    console.print(table)
    console.print()
    console.print(_labels(record["summary"]))
    console.print()
    for line in HONEST:
        console.print(Text(line), soft_wrap=True)
    console.print()
    for name, what in FILES.items():
        path = folder / name
        if path.is_dir() or (path.exists() and path.stat().st_size):
            console.print(Text(f"{printable(str(path))}  {what}"), soft_wrap=True)


def lines(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values."""
    summary, policy = record["summary"], record["policy"]
    counts, turns = summary["conversations"], summary["turns"]
    n = counts["in"]
    yield "conversations", f"{n:,}"
    yield "  stay", _share(counts["kept"], n)
    if counts["cut"]:
        yield "    cut at their first bad turn", _share(counts["cut"], n)
    if policy["on_bad"] == "replace":
        yield "    cut and another turn put there", _share(counts["replaced"], n)
    for reason, count in counts["dropped"].items():
        yield f"  dropped, {reason}", _share(count, n)
    if changed := summary["messages_of_changed"]:
        cut = counts["cut"] + counts["replaced"]
        before, after = changed["before"], changed["after"]
        yield "messages of those cut", f"{after / cut:.1f} of {before / cut:.1f} on average stay ({after / before:.0%})"
    yield "user turns judged", f"{turns['in']:,}"
    yield f"  bad ({_bad(policy)})", f"{_share(turns['bad'], turns['in'])} in {counts['with_bad_turn']:,} conversations"
    if turns["bad"]:
        yield "    the last turn of their conversation", _share(turns["bad_and_last"], turns["bad"])
        rules = list(turns["bad_by_rule"].items())
        for rule, count in rules[:MOST_RULES]:
            yield f"    {one_line(rule, 60)}", _share(count, turns["bad"])
    yield "  stay", _share(turns["kept"], turns["in"])
    if turns["not_judged"]:
        yield "user messages that follow no assistant's text", f"{turns['not_judged']:,}, not judged"
    if (twice := summary["duplicates"]) is not None:
        yield "near-duplicates of an earlier conversation", _share(twice["conversations"], n)
        yield "turns an earlier conversation has word for word", _share(twice["turns_word_for_word"], turns["in"])
        yield "  nearly, of those of 5 words and more", f"{twice['turns_nearly']:,}"
        for text, count in sorted(twice["commonest"].items(), key=lambda item: -item[1]):
            yield f"  in {count:,} conversations", one_line(text, 80)
    if bad := record["input"]["bad_rows"]:
        reasons = ", ".join(f"{count:,} × {reason}" for reason, count in record["input"]["bad_by_reason"].items())
        yield "bad rows left out", f"{bad:,} of {record['input']['rows']:,}: {printable(reasons, 200)}"


def _share(count: int, of: int) -> str:
    return f"{count:,} ({count / of:.1%})" if of else f"{count:,}"


def _bad(policy: Mapping[str, Any]) -> str:
    above = policy["keep_above"]
    return ", ".join([*policy["bad"], *([] if above is None else [f"p_genuine below {above:g}"])])


def _labels(summary: Mapping[str, Any]) -> Table:
    """User turns by label, before → after, of all and of the largest sources."""
    labels: Mapping[str, Mapping[str, list[int]]] = summary["labels"]
    sizes = {source: sum(before for before, _ in found.values()) for source, found in labels.items()}
    sources = sorted(sizes, key=lambda source: -sizes[source])
    columns = sources[:MOST_SOURCES] if len(sources) > 1 else []
    table = Table(box=None, pad_edge=False, header_style="")
    table.add_column("user turns, before → after")
    table.add_column("all", justify="right")
    for source in columns:
        name = (
            source if len(source) <= WIDTH else f"…{source[1 - WIDTH :]}"
        )  # the ends tell more apart than the beginnings
        table.add_column(Text(printable(name) if source else "(not named)"), justify="right")
    names = {name for found in labels.values() for name in found}
    totals = {name: [sum(found.get(name, [0, 0])[i] for found in labels.values()) for i in (0, 1)] for name in names}
    for name in sorted(names, key=lambda name: (name != "follow_up", -totals[name][0])):
        cells = [totals[name], *(labels[source].get(name, [0, 0]) for source in columns)]
        table.add_row(PASSED if name == "follow_up" else name, *(f"{before:,} → {after:,}" for before, after in cells))
    if rest := len(sources) - len(columns) if columns else 0:
        table.caption = Text(f"{rest:,} more sources in run.json")
        table.caption_justify = "left"
    return table
