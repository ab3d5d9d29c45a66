"""Where one begins: conversations to sample from, data to clean, prompts to play."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfplay.api.calling import Source, call
from selfplay.api.folder import Folder, folder
from selfplay.api.given import Given, Rows
from selfplay.api.turns import Turns

SHOWING = ("preview", "show")
"""Options of `selfplay run` that only show something."""


class Conversations:
    """Conversations that turns can be sampled for; made by `load`."""

    def __init__(self, source: Rows) -> None:
        self._given = Given(source)

    def __repr__(self) -> str:
        return f"<Conversations: {'rows in memory' if self._given.in_memory else self._given.path}>"

    def sample(self, out: Source | None = None, **options: Any) -> Turns:
        """Samples user turns after assistant messages, as `selfplay sample` does.

        Args:
            out: Folder of the run; the same call goes on there where an earlier one stopped. Without it nothing is
                kept but what is returned. (Of rows in memory a run is not resumed by another process: save them.)
            options: Those of `selfplay sample`: model, n, temperature (`0.7`, `[0.7, 1.0]` or `{0.7: 4, 1.0: 8}`),
                max_tokens, turns, limit, seed, engine, base_url …

        Raises:
            TypeError: There is no such option.
            SelfplayError: A mistake in the options, an engine that cannot go on, too many bad rows.
        """
        with ExitStack() as stack:
            place = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="selfplay-")), "run")
            call("sample", [self._given.path], {"quiet": True, **options, "out": place})
            turns = folder(place).turns()
            return turns if out else replace(turns, folder=None)

    def run(self, out: Source, **options: Any) -> Folder:
        """Samples, filters, ranks and chooses into a folder, as `selfplay run` does: the whole of it at once.

        It scores turns on the engine that sampled them where that can be, can draw again at hard sites
        (`until_survivors`), can be resumed, and holds no more than a part in memory.

        Args:
            out: Folder of the dataset.
            options: Those of `selfplay run`.

        Raises:
            TypeError, SelfplayError: As `sample`.
        """
        call("run", [self._given.path], {"quiet": True, **options, "out": out}, SHOWING)
        return folder(out)


def load(source: Rows) -> Conversations:
    """Conversations from a file or folder that `selfplay inspect` reads, or from rows in memory.

    Args:
        source: A path, or mappings with `messages` (or ShareGPT's `conversations`, or `prompt` and `response`): a list,
            a polars frame, a split of `datasets`.

    Raises:
        UsageError: There is nothing at the path, or a row is no mapping.
    """
    return Conversations(source)


def clean(source: Rows, out: Source, **options: Any) -> Folder:
    """Judges every user turn of existing conversations, as `selfplay clean` does.

    Args:
        source: As for `load`.
        out: Folder to write.
        options: Those of `selfplay clean`: rules, on_bad, bad, keep_above, duplicates …

    Raises:
        TypeError: There is no such option.
        SelfplayError: A mistake in the options or data.
    """
    given = Given(source)
    call("clean", [given.path], {"quiet": True, **options, "out": out})
    return folder(out)


def play(prompts: Rows, out: Source, **options: Any) -> Folder:
    """Plays dialogues from first prompts, as `selfplay play` does.

    Args:
        prompts: A path, or mappings with `prompt` or a conversation.
        out: Folder to write; the same call goes on there where an earlier one stopped.
        options: Those of `selfplay play`: rounds, n, model, user_model, persona_column …

    Raises:
        TypeError: There is no such option.
        SelfplayError: A mistake in the options, an engine that cannot go on, too many bad rows.
    """
    given = Given(prompts)
    call("play", [given.path], {"quiet": True, **options, "out": out})
    return folder(out)
