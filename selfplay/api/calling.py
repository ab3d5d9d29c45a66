"""Calls verbs by the options that their commands define, so that names, defaults and checks are written down once."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath
from typing import Any

import click

from selfplay.cli import as_typed, cli
from selfplay.errors import UsageError

Source = str | PathLike[str]


def context(
    verb: str, arguments: Collection[Source], options: Mapping[str, Any], without: Collection[str] = ()
) -> click.Context:
    """What a call of the verb would be made of: `params` has all its parameters, parsed and checked.

    Args:
        options: By the verb's names, with underscores or without the dashes; None is the default.
        without: Names of options that are not the caller's to give.

    Raises:
        TypeError: The verb has no such option.
        UsageError: A value it does not take.
    """
    command = cli.get_command(click.Context(cli), verb)
    if command is None:
        raise AssertionError(f"no verb {verb}")
    known = _options(command)
    for name in options:
        if name not in known or name in without:
            near = difflib.get_close_matches(name, known.keys() - set(without), 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; `selfplay {verb} --help` lists them"
            raise TypeError(f"{verb}: no option {name!r}{hint}")
    with mistakes():
        values = {
            known[name].name: as_typed(known[name], _plain(value), f"{verb}: {name}")
            for name, value in options.items()
            if value is not None
        }
        return command.make_context(verb, ["--", *(fspath(each) for each in arguments)], default_map=values)


def call(verb: str, arguments: Collection[Source], options: Mapping[str, Any], without: Collection[str] = ()) -> None:
    """Does what the verb does.

    Raises:
        TypeError, UsageError: As `context`.
        SelfplayError: What the verb ends with.
        KeyboardInterrupt: It was interrupted; the same call goes on where it stopped.
    """
    made = context(verb, arguments, options, without)
    with mistakes(), made:
        code = made.command.invoke(made)
    if code == 130:
        raise KeyboardInterrupt


@contextmanager
def mistakes() -> Iterator[None]:
    """Raises as UsageError what the command line calls a mistake."""
    try:
        yield
    except click.ClickException as error:
        raise UsageError(error.format_message()) from None


def _options(command: click.Command) -> dict[str, click.Option]:
    """By the long names as they are typed, with underscores."""
    return {
        name.lstrip("-").replace("-", "_"): param
        for param in command.params
        if isinstance(param, click.Option)
        for name in param.opts
        if name.startswith("--")
    }


def _plain(value: Any) -> Any:
    """As a TOML file would have it; temperatures also as `{0.7: 4}`."""
    if isinstance(value, Mapping):
        return [f"{key}:{each}" for key, each in value.items()]
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    return fspath(value) if isinstance(value, PathLike) else value
