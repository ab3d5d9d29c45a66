"""Errors that are the user's to mend: one line saying what is wrong, where, and how to mend it."""


class SelfplayError(Exception):
    """Ends a command with this one line and `exit_code`, never with a traceback."""

    exit_code = 1


class UsageError(SelfplayError):
    """The call itself is wrong: an option, a value, a missing file."""

    exit_code = 2


class TooManyBadRows(SelfplayError):
    """More rows went to quarantine than `--max-bad` allows."""

    exit_code = 3


class EngineError(SelfplayError):
    """An engine as a whole cannot go on: unreachable, out of memory, model refused, operation unsupported."""
