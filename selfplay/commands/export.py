"""`selfplay export`: results in the forms that trainers read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from selfplay.commands import options

FORMATS = ("prompt-completion", "messages", "assistant", "dpo", "kto", "reward", "openai", "sharegpt", "hub")


@click.command(
    epilog="Example: selfplay export dataset -o sft --format prompt-completion --validation 0.05\n\n"
    "         selfplay export dataset -o card --format hub --push-to-hub me/user-turns",
    short_help="Write a run's turns as trainers read them, or as a dataset with its card.",
)
@click.argument("folder", metavar="RUN")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), metavar="OUT", help="Folder to write.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    default=("prompt-completion",),
    show_default=True,
    help="Repeat for several. hub: a dataset folder with a card, alone all that fits.",
)
@click.option("--file-type", type=click.Choice(["jsonl", "parquet"]), help="[default: jsonl; hub: parquet]")
@click.option(
    "--validation",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    metavar="SHARE",
    help="Share of conversations kept apart.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides which conversations those are.")
@click.option(
    "--side",
    type=click.Choice(["user", "assistant"]),
    default="user",
    show_default=True,
    help="Whose turns are learned, in messages, prompt-completion, openai, sharegpt; user flips the roles.",
)
@click.option(
    "--pairs",
    type=click.Choice(["survivors", "flagged", "both"]),
    default="both",
    show_default=True,
    help="dpo: chosen turns against the worst survivor, flagged ones, or both.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    metavar="M",
    help="dpo: the least by which the scores of a pair differ.",
)
@click.option("--system", metavar="TEXT", help="A system message for the user simulator.")
@click.option(
    "--opening",
    metavar="TEXT",
    help="A first message to the user simulator, for templates that want one before it speaks.",
)
@click.option("--column", "columns", multiple=True, metavar="NAME", help="Keep this column of the input. Repeatable.")
@click.option("--source-license", metavar="NAME", help="hub: licence of the conversations, where rows do not say.")
@click.option("--push-to-hub", metavar="REPO", help="Upload the dataset folder, to a private repository if it is new.")
@click.option("--public", is_flag=True, help="Make a new repository public.")
@click.option("--overwrite", is_flag=True, help="Write into a folder that holds something else.")
@click.option("-q", "--quiet", is_flag=True, help="No closing lines.")
def command(
    folder: str,
    out: Path,
    formats: tuple[str, ...],
    file_type: str | None,
    validation: float,
    seed: int,
    source_license: str | None,
    push_to_hub: str | None,
    public: bool,
    overwrite: bool,
    quiet: bool,
    **rows: Any,
) -> None:
    """Write finished results in the forms that trainers read.

    RUN is a folder that `run`, `clean` or `play` wrote; nothing is written into it. For a user simulator roles are
    flipped, so that completions and assistant-only masks are the user's turns. A conversation is on one side of the
    split only, and stays there when more data comes. --push-to-hub takes its token from the environment (HF_TOKEN)
    and uploads the card and the data, nothing else.
    """
    from selfplay.exporting.export import Export, export, lines
    from selfplay.exporting.formats import Options

    asked = Export(
        formats, file_type, validation, seed, Options(**rows), source_license, push_to_hub, public, overwrite
    )
    written = export(folder, out, asked)
    if not quiet:
        options.say(lines(out, written, push_to_hub))
