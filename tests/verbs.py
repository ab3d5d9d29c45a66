"""Calls verbs of the command line: they end well, or in the one line of a mistake."""

from __future__ import annotations

from click.testing import CliRunner, Result

from selfplay.cli import cli
from selfplay.errors import SelfplayError, UsageError


def call(verb: str, *args: object) -> Result:
    """What came of it; anything raised that is no mistake of the user's is an error here."""
    done = CliRunner().invoke(cli, [verb, *map(str, args)])
    assert done.exception is None or isinstance(done.exception, SelfplayError | SystemExit), done.exception
    return done


def mistake(verb: str, *args: object) -> str:
    """The one line that a failing call ends in."""
    done = call(verb, *args)
    assert done.exit_code != 0
    text = str(done.exception) if isinstance(done.exception, UsageError) else done.output.strip().splitlines()[-1]
    assert "\n" not in text
    return text
