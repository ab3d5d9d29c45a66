"""`selfplay play`: first prompts in, dialogues out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from selfplay.commands import options


@click.command(
    "play",
    epilog="Example: selfplay play prompts.jsonl -o dialogues --rounds 3 --n 8\n\n"
    "         selfplay play tasks.jsonl -o dialogues --persona-column goal --model Qwen/Qwen3-8B\n\n"
    "         selfplay play prompts.jsonl -o dialogues --engine sglang --base-url http://127.0.0.1:30000 "
    "--user-base-url http://127.0.0.1:30001",
    short_help="Play dialogues from first prompts: answer, sample user turns, take the best, and on.",
)
@click.argument("conversations", metavar="PROMPTS")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="OUT", help="Folder to write.")
@click.option(
    "--rounds",
    type=click.IntRange(1, 99),
    default=3,
    show_default=True,
    metavar="R",
    help="User turns to sample in each dialogue; a larger number goes on from a finished play.",
)
@click.option(
    "--start",
    type=click.Choice(["first", "last"]),
    default="last",
    show_default=True,
    help="Where a row holds more than a prompt: play from its first user message or from its last.",
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many prompts.")
@options.max_bad
@options.prompting
@click.option("--assistant-temperature", type=click.FloatRange(0, 10), default=0.7, show_default=True)
@click.option("--assistant-top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True)
@click.option(
    "--assistant-max-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="Limit of an answer."
)
@click.option("--assistant-chat", is_flag=True, help="openai: take the answers by the chat interface.")
@click.option(
    "--allow-cut-answers",
    "allow_cut",
    is_flag=True,
    help="Go on behind an answer cut at that limit. [default: the dialogue ends before it]",
)
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="End a dialogue where another round could make it longer. [default: the model's context]",
)
@click.option(
    "--persona-column",
    "persona",
    metavar="COLUMN",
    help="Column that says who the user is or wants; shown to the user's side only. The data is primed.",
)
@click.option("--end-marker", metavar="TEXT", help="What a primed user ends with. [default: ###STOP###]")
@click.option("--user-model", type=options.Name(), help="Another model for the user's turns.")
@click.option(
    "--user-engine",
    type=click.Choice(["transformers", "sglang", "openai"]),
    help="Another engine for the user's turns.",
)
@click.option("--user-base-url", "user_base_urls", multiple=True, metavar="URL", help="Its server; several for sglang.")
@click.option("--user-tokenizer", help="Its tokenizer, if not from its model.")
@options.sampling
@options.rounds
@options.engines
@options.judging
@options.bounds
@click.option(
    "--pairs",
    type=click.Choice(["survivors", "flagged", "both"]),
    help="Write pairs.jsonl of each round, as `run` does.",
)
@click.option("--fresh", is_flag=True, help="Start over: forget what the folder's earlier play did.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no closing table.")
def command(out: Path, fresh: bool, quiet: bool, **values: Any) -> int:
    """Play dialogues: the assistant answers, N user turns are sampled, filtered and ranked, the best goes in.

    PROMPTS holds rows {"prompt": …} or conversations: JSONL (also .gz, .zst), Parquet, a dataset folder, or - for
    stdin. A round is an answer and a user turn; a last answer follows, so that every user turn gets one. --temperature,
    --n, --max-tokens and the like are for the user's turns. --model and the engine are for both sides, unless --user-…
    names others. With --persona-column, --system is the text that the user's side gets: {persona} stands for the
    row's, {end} for the end marker. Started again, an interrupted play goes on where it stopped.
    """  # fmt: skip
    from selfplay.playing.job import from_options
    from selfplay.playing.play import play

    return play(from_options(values), out, fresh=fresh, quiet=quiet)
