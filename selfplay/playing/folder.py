"""The folder of a play: its record, and a run folder for each stage.

run.json                what was asked for, versions, counts, timings
answers-01, round-01, answers-02, …   the stages in the order they are played: the assistant's answers (sites end
                        with the user), then the user turns (ordinary run folders)
conversations.jsonl     the dialogues
unanswered.jsonl        prompts that came to no dialogue
failed.jsonl, quarantine.jsonl        as in a run, of all stages
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from selfplay.runs import FILES, KINDS, Run

OWN_FILES = ("conversations.jsonl", "unanswered.jsonl", "failed.jsonl", "quarantine.jsonl", "engine.log", "user.log")
STAGES = ("answers-*", "round-*")


class PlayFolder(Run):
    """An open, locked folder of a play. Its record is kept and compared as a run's; it has no parts of its own."""

    verb = "play"
    files = OWN_FILES

    def stage(self, number: int) -> Path:
        """Where stage `number` lies: 0 the first answers, 1 the first user turns, 2 the second answers …"""
        return self.folder / f"{'round' if number % 2 else 'answers'}-{number // 2 + 1:02d}"

    def stages(self) -> list[Path]:
        """The stages that have been begun."""
        found = (path for pattern in STAGES for path in self.folder.glob(pattern))
        return sorted(path for path in found if (path / "run.json").exists())

    def make(self) -> None:
        """Nothing: stages are made when they are begun."""

    def begun(self) -> bool:
        """Whether any stage has sampled anything."""
        return any(next((path / "sampled").glob("part-*"), None) for path in self.stages())

    def _clear(self) -> None:
        for path in self.stages():
            for kind in (*KINDS, "rounds"):
                shutil.rmtree(path / kind, ignore_errors=True)
            for name in (*FILES, ".lock", "run.json"):
                (path / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # what else lies there is not ours
                path.rmdir()
        super()._clear()
