"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfplay.errors import UsageError

if TYPE_CHECKING:
    from selfplay.inputs.quarantine import Quarantine

Command = Callable[..., Any]


def stack(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order written."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class Temperatures(click.ParamType):  # type: ignore[type-arg]
    """`0.7` or `0.7:4`, the second with its own number of samples."""

    name = "T[:N]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, int | None]:
        if isinstance(value, tuple):
            return value
        temperature, _, count = str(value).partition(":")
        try:
            # Six digits are what seeds and the saved configuration tell apart.
            found = float(f"{float(temperature):g}"), int(count) if count else None
        except ValueError:
            self.fail(f"{value!r} is not a temperature such as 0.7 or 0.7:4", param, ctx)
        if not 0 <= found[0] <= 10 or (found[1] is not None and found[1] < 1):
            self.fail(f"{value!r}: temperatures lie in 0..10 and counts are at least 1", param, ctx)
        return found


class Name(click.ParamType):  # type: ignore[type-arg]
    """A model's name, which is not blank."""

    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).strip():
            self.fail("it is empty; give a name, a folder or a Hugging Face id", param, ctx)
        return str(value)


max_bad = click.option(
    "--max-bad", metavar="COUNT|SHARE", help="End with exit code 3 when more rows are bad, e.g. 25 or 1%."
)

reading = stack(
    click.argument("conversations", metavar="CONVERSATIONS"),
    click.option("--turns", type=click.Choice(["last", "all"]), default="last", show_default=True,
                 help="Sites: after the last assistant message of each conversation, or after each."),
    click.option("--limit", type=click.IntRange(min=1), help="At most so many sites."),
    max_bad,
)  # fmt: skip

turn_rows = stack(
    click.argument("file"),
    click.option("-o", "--out", default="-", show_default=True, metavar="OUT",
                 help="JSONL (.gz, .zst), .parquet, or - for stdout."),
    click.option("--quarantine", metavar="FILE",
                 help="Where bad rows go. [default: OUT.quarantine.jsonl; with stdout they are only counted]"),
    max_bad,
)  # fmt: skip

prompting = stack(
    click.option("--model", help="Embedded name, local folder or Hugging Face id. [default: smollm2-135m]"),
    click.option("--revision", help="Revision of a Hugging Face model."),
    click.option("--tokenizer", help="Where tokenizer and chat template come from, if not from the model."),
    click.option("--system", default="keep", show_default=True, metavar="keep|drop|TEXT",
                 help="System message: as in the data, none, or this text (primes the user turn)."),
)  # fmt: skip

engines = stack(
    click.option("--engine", type=click.Choice(["transformers", "sglang", "openai"]), default="transformers",
                 show_default=True, help="What samples."),
    click.option("--base-url", "base_urls", multiple=True, metavar="URL",
                 help="Server of sglang or openai; several for sglang. [env: OPENAI_BASE_URL for openai]"),
    click.option("--launch", is_flag=True, help="Start an SGLang server for this run and stop it afterwards."),
    click.option("--in-process", is_flag=True, help="Use sglang.Engine in this process."),
    click.option("--sglang-python", "python", envvar="SELFPLAY_SGLANG_PYTHON", metavar="PYTHON",
                 help="Python of the environment that has SGLang, for --launch."),
    click.option("--server-arg", "server_args", multiple=True, metavar="ARG",
                 help="Passed on to the launched server or engine, e.g. --server-arg=--tp-size=2."),
    click.option("--chat", is_flag=True, help="openai: ask for the user's turn by instruction (primed, marked so)."),
    click.option("--device", help="transformers: cpu, cuda, cuda:1 …  [default: cuda if there]"),
    click.option("--sites-per-batch", type=click.IntRange(min=1), default=4, show_default=True,
                 help="transformers: sites decoded together; part of what makes a run repeatable."),
    click.option("--dtype", default="auto", show_default=True, help="transformers: auto, float32, bfloat16, float16."),
    click.option("--max-in-flight", type=click.IntRange(min=1), help="Servers: requests under way at once."),
    click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Servers: seconds for one request."),
)  # fmt: skip

sampling = stack(
    click.option("--n", type=click.IntRange(1, 1024), default=8, show_default=True, help="Samples per temperature."),
    click.option("--temperature", "temperatures", type=Temperatures(), multiple=True, metavar="T[:N]",
                 help="Repeat for several; T:N sets its own number of samples. [default: 1.0]"),
    click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True),
    click.option("--top-k", type=click.IntRange(min=0), default=0, show_default=True, help="0 is no limit."),
    click.option("--min-p", type=click.FloatRange(0, 1), default=0.0, show_default=True),
    click.option("--max-tokens", type=click.IntRange(min=1), default=128, show_default=True, help="Limit of a turn."),
    click.option("--seed", type=int, default=0, show_default=True),
)  # fmt: skip

rounds = stack(
    click.option("--until-survivors", type=click.IntRange(min=1), metavar="K",
                 help="Draw N again where fewer than K distinct turns may be chosen."),
    click.option("--max-n", type=click.IntRange(min=1), metavar="M",
                 help="Give a site up after M candidates in all. [default: four rounds]"),
)  # fmt: skip

rules = click.option("--rules", metavar="FILE", help="Rule set. [default: the shipped one]")
weights = click.option("--weights", metavar="FILE", help="Ranking weights. [default: the shipped ones]")
tiers = click.option(
    "--tiers", default="auto", show_default=True,
    type=click.Choice(["auto", "text", "text+embedding", "text+embedding+state", "all"]),
    help="Signals to use: auto takes what rules and weights read and the rows carry or this installation can measure; "
         "all adds the likelihoods, four passes of the scorer instead of one.",
)  # fmt: skip
scorer_model = click.option(
    "--scorer-model", type=Name(), metavar="NAME|self",
    help="Model that scores turns, self for the one that wrote them; rules and weights must have been learned with "
         "it. [default: smollm2-135m]",
)  # fmt: skip
cross_encoder = click.option(
    "--cross-encoder", type=Name(), metavar="NAME",
    help="sentence-transformers CrossEncoder, folder or Hugging Face id, for one more signal; the weights must have "
         "been learned with it.",
)  # fmt: skip
judged = click.argument("judged", type=click.Path(path_type=Path), metavar="JUDGED")
signals = click.option(
    "--signals", type=click.Path(path_type=Path), metavar="PARQUET",
    help="Keep the measured signals here, and take them from here if they are there.",
)  # fmt: skip
training_scorer = click.option(
    "--scorer-model", type=Name(), metavar="NAME", help="Score turns with this model. [default: smollm2-135m]"
)
judging = stack(rules, weights, tiers, scorer_model, cross_encoder)

diversity = click.option(
    "--diversity", type=click.FloatRange(0, 1), default=0.0, show_default=True,
    help="What unlikeness weighs against merit: to the site's other turns, to those chosen before.",
)  # fmt: skip
bounds = stack(
    click.option("--min-groundedness", type=click.FloatRange(0, 1), default=0.0, show_default=True,
                 help="Choose no turn below this."),
    click.option("--allow-truncated", is_flag=True, help="A turn cut at the token limit may be chosen."),
)  # fmt: skip
choosing = stack(
    click.option("--select", type=click.IntRange(1, 1024), default=1, show_default=True, metavar="K",
                 help="Choose up to K different turns per site."),
    diversity,
    bounds,
    click.option("--pairs", type=click.Choice(["survivors", "flagged", "both"]),
                 help="Write pairs.jsonl: the chosen turn against the worst survivor, flagged ones, or both."),
)  # fmt: skip

shown = stack(
    click.option("--sites", type=click.IntRange(min=1), default=10_000, show_default=True,
                 help="At most so many in the browser, drawn by a hash of their ids; figures are of all."),
    click.option("--by", multiple=True, metavar="COLUMN",
                 help="Column of the input to count labels and filter by. [default: source, domain … where there]"),
)  # fmt: skip


def quarantine_beside(out: str, given: str | None, max_bad: str | None, source: str) -> Quarantine:
    """The quarantine of a verb that writes `out`: beside it unless named, nowhere for stdout or a device."""
    import contextlib
    import os

    from selfplay.inputs.quarantine import Quarantine
    from selfplay.inputs.source import keep_apart

    nowhere = out == "-" or (os.path.exists(out) and not os.path.isfile(out))
    if out != "-":
        keep_apart(source, out, "-o")
        if given and os.path.realpath(given) == os.path.realpath(out):
            raise UsageError(f"--quarantine {given}: that is where -o writes; give another file")
    path = given or (None if nowhere else f"{out}.quarantine.jsonl")
    if path and not given:
        with contextlib.suppress(OSError):  # Quarantine says what is wrong
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    return Quarantine(path, max_bad, source=source)


def say(lines: Iterable[str]) -> None:
    """Lines about what was done, on stderr."""
    from selfplay.terminal import printable

    for line in lines:
        click.echo(printable(line), err=True)
