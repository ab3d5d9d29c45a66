"""`selfplay agree`: how far judges, people and rules agree on the same turns."""

from __future__ import annotations

import click

from selfplay.errors import SelfplayError


@click.command(
    epilog="Example: selfplay agree annotated.jsonl judged.jsonl labelled.jsonl\n\n"
    "         selfplay agree judged-by-two.jsonl --json | jq .pairs[0].cohen_genuine",
    short_help="Tell how far judges, people and rules agree.",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
@click.option(
    "--bootstrap",
    type=click.IntRange(0, 100_000),
    default=1000,
    show_default=True,
    metavar="N",
    help="Replicates for the intervals; 0 for none.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def command(files: tuple[str, ...], as_json: bool, bootstrap: int, seed: int) -> None:  # fmt: skip
    """Tell how far judges, people and rules agree on the same turns.

    FILEs are what judge, annotate and filter write; each judge, person or rule set in them is a rater. Rows of equal
    id are the same turn, or where ids are missing or not unique, those of equal messages and turn. Cohen's kappa for
    each two raters, Fleiss' kappa for more, Krippendorff's alpha for all; on genuine or not (follow_up or anything
    else), on the nine labels and on grades. A row without a valid label counts as missing.
    """
    import json

    from selfplay.judge import report

    try:
        found = report.compare(files, bootstrap, seed)
    except ImportError as error:
        raise SelfplayError(
            f"agreement needs {error.name}, which is not installed: pip install 'selfplay-turns[agree]'"
        ) from None
    click.echo(json.dumps(found, ensure_ascii=False) if as_json else "\n".join(report.lines(found)))
