"""Sample many user turns after each assistant response, throw out the bad, keep the most grounded.

    import selfplay

    turns = selfplay.load("conversations.jsonl").sample(model="Qwen/Qwen3-8B", n=8)
    turns.filter().rank(select=1).export("sft", format="prompt-completion")

`load`, `turns`, `clean`, `play` and `folder` are where one begins; all take the options of the verbs of the command
line. Importing the package loads nothing but their names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfplay.api.conversations import Conversations, clean, load, play
    from selfplay.api.folder import Folder, folder
    from selfplay.api.turns import Turns, turns
    from selfplay.errors import SelfplayError, UsageError

__version__ = "0.1.0"
__all__ = [
    "Conversations", "Folder", "SelfplayError", "Turns", "UsageError", "clean", "folder", "load", "play", "turns",
]  # fmt: skip

_HOMES = {
    **dict.fromkeys(("Conversations", "clean", "load", "play"), "selfplay.api.conversations"),
    **dict.fromkeys(("Folder", "folder"), "selfplay.api.folder"),
    **dict.fromkeys(("Turns", "turns"), "selfplay.api.turns"),
    **dict.fromkeys(("SelfplayError", "UsageError"), "selfplay.errors"),
}


def __getattr__(name: str) -> Any:
    # No module of the package may have one of these names: once imported it would hide the function.
    if name not in _HOMES:
        raise AttributeError(f"module 'selfplay' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
