"""The `selfplay` command: finds a verb's module only when it is called, and turns mistakes into one line."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tomllib
from typing import Any, NoReturn

import click

from selfplay import __version__
from selfplay.errors import SelfplayError
from selfplay.terminal import printable

VERBS = {
    "run": "Sample, filter and rank user turns, and write a dataset.",
    "play": "Play dialogues from first prompts: answer, sample user turns, take the best, and on.",
    "sample": "Sample N user turns after each assistant response.",
    "clean": "Judge the user turns of existing conversations; flag, cut, drop, replace.",
    "filter": "Label candidate turns and say which rule fired and why.",
    "rules": "Show the rules as sentences, and explain what they say about one turn.",
    "rank": "Order candidate turns by how grounded they are in the answer.",
    "export": "Write a run's turns as trainers read them, or as a dataset with its card.",
    "prompt": "Show the exact prompt at a site, its stops and token count.",
    "inspect": "Tell what is in a file of conversations.",
    "report": "Write one page with figures and every conversation, readable offline.",
    "view": "Show results in a local browser, or have people label turns there.",
    "models": "List the embedded models and get them.",
    "judge": "Have language models judge candidate turns by the rubric.",
    "annotate": "Make a blinded sheet for people to judge turns, and read it back.",
    "agree": "Tell how far judges, people and rules agree.",
    "train": "Learn rules and calibration from judged turns.",
    "train-ranker": "Learn the weights that rank turns from judged turns.",
    "signals": "Tell what the signals are: source, cost, range, weakness.",
    "evaluate": "Tell how good filter and ranking are, on judged turns.",
}


class Verbs(click.Group):
    """Loads `selfplay.commands.<verb>` on demand, so that `--help` imports nothing heavy."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"selfplay.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        if ctx.default_map and cmd_name in ctx.default_map:
            ctx.default_map = {cmd_name: by_parameter(command, ctx.default_map[cmd_name])}
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def by_parameter(command: click.Command, table: dict[str, Any]) -> dict[str, Any]:
    """A table of the TOML file, keyed by option names as typed, keyed by click's parameter names instead."""
    if not isinstance(table, dict):
        raise click.UsageError(f"the config file has {command.name} = …; options go into a table [{command.name}]")
    options = {opt.lstrip("-"): param for param in command.params for opt in (*param.opts, *param.secondary_opts)}
    given = {}
    for key, value in table.items():
        option = options.get(key.replace("_", "-"))
        if not isinstance(option, click.Option) or option.name is None:
            raise click.UsageError(f"[{command.name}] in the config file has {key!r}, which is no option of it")
        given[option.name] = as_typed(option, value, f"[{command.name}] {printable(key)} in the config file")
    return given


def as_typed(option: click.Option, value: Any, where: str) -> Any:
    """A TOML value as the flag's would be typed, so that click checks both alike; `where` is for the message."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise click.UsageError(f"{where} is a switch: give true or false")
        return value
    values = value if isinstance(value, list) and option.multiple else [value]
    if any(isinstance(each, bool | list | dict) for each in values):
        more = " or a list of them" if option.multiple else ""
        raise click.UsageError(f"{where} takes a string or number{more}")
    typed = [str(each) for each in values]
    return typed if option.multiple else typed[0]


def read_config(ctx: click.Context, _param: click.Parameter, path: str | None) -> None:
    """Options from a TOML file, one table per verb; flags override them."""
    if path is None:
        return
    try:
        with open(path, "rb") as file:
            tables = tomllib.load(file)
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{path} is not TOML: {error}") from None
    unknown = sorted(set(tables) - set(VERBS))
    if unknown:
        raise click.BadParameter(f"{path}: no verb [{printable(unknown[0])}]; tables are {', '.join(VERBS)}")
    ctx.default_map = tables


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Example: selfplay run conversations.jsonl -o dataset --n 8",
)
@click.version_option(__version__, prog_name="selfplay")
@click.option(
    "--config",
    metavar="FILE",
    expose_value=False,
    is_eager=True,
    callback=read_config,
    help="TOML, one table per verb.",
)
def cli() -> None:
    """Sample many user turns after each assistant response, throw out the bad, keep the most grounded."""


def main() -> None:
    """Console entry point. Exit codes: 0 done, 1 failed, 2 usage, 3 too many bad rows, 130 interrupted."""
    if sys.stdout is None:  # closed by the caller, `>&-`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    try:
        status: Any = cli.main(prog_name="selfplay", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):  # click makes the first of the second
        click.echo("selfplay: interrupted", err=True)
        leave_now(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SelfplayError as error:
        # What it quotes, such as a file's name or a server's words, may hold anything.
        click.echo(f"selfplay: {printable(str(error))}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output left (`selfplay … | head`); keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # A folder that cannot be made, a disk that is full: whatever no verb has better words for.
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"selfplay: {printable(f'{where}{error.strerror or error}')}", err=True)
        with contextlib.suppress(ValueError):  # stdout itself may be what is full; its flush at exit would complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    if status == 130:
        leave_now(130)
    sys.exit(status if isinstance(status, int) else 0)


def leave_now(code: int) -> NoReturn:
    """Ends the process without waiting for threads, which may be in the middle of a forward pass."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
