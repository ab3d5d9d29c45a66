"""`selfplay annotate`: a blinded sheet for people, and what they wrote into it as judged turns."""

from __future__ import annotations

import click

from selfplay.commands import options
from selfplay.errors import UsageError


@click.command(
    epilog="Example: selfplay annotate turns.jsonl -o sheet.html --n 100\n\n"
    "         selfplay annotate --read annotated-sheet.json --turns turns.jsonl -o annotated.jsonl --annotator ana",
    short_help="Make a blinded sheet for people to judge turns, and read it back.",
)
@click.argument("file", required=False, metavar="[TURNS]")
@click.option(
    "-o",
    "--out",
    required=True,
    metavar="OUT",
    help="The sheet, .csv or .html; with --read the annotated turns, JSONL, .parquet or -.",
)
@click.option("--n", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many turns.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides which turns, and their order.")
@click.option("--read", "sheet", metavar="SHEET", help="A sheet that was filled in: CSV, or JSON from the HTML sheet.")
@click.option("--turns", metavar="TURNS", help="With --read: the turns the sheet was made from.")
@click.option("--annotator", metavar="NAME", help="With --read: who filled it in.")
@click.option("--quarantine", metavar="FILE", help="Where bad rows of TURNS go. [default: OUT.quarantine.jsonl]")
@options.max_bad
def command(
    file: str | None,
    out: str,
    n: int,
    seed: int,
    sheet: str | None,
    turns: str | None,
    annotator: str | None,
    quarantine: str | None,
    max_bad: str | None,
) -> None:  # fmt: skip
    """Make a blinded sheet for people to judge turns, and read it back.

    TURNS are rows as judge and filter take them. The sheet shows conversation and turn in random order under opaque
    ids, and nothing of models, temperatures or labels; equal turns stand in it once. In the CSV, fill in label (1 to 9
    in the rubric's order, or its name) and groundedness (0 to 3); the HTML file works with the keyboard and saves what
    --read takes. Turns that were left empty are left out.
    """
    from selfplay.inputs.source import keep_apart
    from selfplay.inputs.turnrows import left_out, write_turn_rows
    from selfplay.judge import marks  # fmt: skip
    from selfplay.judge import sheet as sheets

    if sheet is None:
        if turns or annotator:
            raise UsageError("--turns and --annotator go with --read SHEET; to make a sheet give the turns alone")
        if file is None:
            raise UsageError("which turns? Give a file, or --read SHEET to read one back")
        sheets.kind_of(out)
        with options.quarantine_beside(out, quarantine, max_bad, file) as bad:
            items = sheets.draw(file, bad, n, seed)
            sheets.write(items, out)
            options.say([f"{len(items):,} turns, in random order, in {out}", *left_out(bad)])
            if sheets.kind_of(out) == ".csv":
                names = ", ".join(f"{number} {name}" for number, name in enumerate(marks.NAMES, 1))
                options.say([f"label takes {names}; groundedness 0 to 3; what they mean: filters/rubric.md"])
        return
    source = turns or file
    if not source or not (annotator and annotator.strip()) or (turns and file):
        raise UsageError("--read SHEET also takes --turns TURNS (what it was made from) and --annotator NAME")
    keep_apart(sheet, out, "-o")
    found, empty = marks.read_marks(sheet)
    with options.quarantine_beside(out, quarantine, max_bad, source) as bad:
        tables = sheets.annotated(source, bad, found, annotator.strip())
        count = write_turn_rows(tables, out, sheets.ADDED)
        left = f", {empty:,} left empty" if empty else ""
        options.say([f"{len(found):,} turns labelled by {annotator.strip()}{left}; {count:,} rows", *left_out(bad)])
