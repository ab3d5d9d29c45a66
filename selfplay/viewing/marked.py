"""The file that labels go to as they are given: rows that `selfplay agree` and `selfplay train` read."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filters.labels import Label
from selfplay.dataset import write_lines
from selfplay.errors import UsageError
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.turnrows import iter_turn_rows
from selfplay.judge.marks import NAMES
from selfplay.judge.sheet import ADDED, opaque_id
from selfplay.terminal import one_line

COMMENT = 10_000
"""Characters of a comment that are kept."""


class Marked:
    """Rows of one annotator by opaque id, in the order in which they were first labelled.

    Args:
        path: Made with the first label; what is in it is gone on with.

    Raises:
        UsageError: The file holds something else, or labels by somebody else.
    """

    def __init__(self, path: Path, annotator: str) -> None:
        self.path = path
        self.annotator = annotator
        self.rows: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        if path.is_dir():
            raise UsageError(f"--annotate {path}: that is a folder; give a file")
        if path.exists() and path.stat().st_size:
            self._read()
        self._seen = self._state()

    def marks(self) -> dict[str, dict[str, Any]]:
        """Label, grade and comment by opaque id."""
        with self._lock:
            names = ("label", "groundedness", "comment")
            return {key: {n: row[n] for n in names if row.get(n) is not None} for key, row in self.rows.items()}

    def give(self, key: str, row: Mapping[str, Any], mark: Mapping[str, Any]) -> None:
        """Saves what was said of a turn, or says it anew; on disk when this returns.

        Raises:
            ValueError: It is no label or no grade.
            UsageError: The file was changed by something else, or cannot be written.
        """
        label, grade, comment = (mark.get(name) for name in ("label", "groundedness", "comment"))
        if label not in NAMES or not (grade is None or (type(grade) is int and 0 <= grade <= 3)):
            raise ValueError("no label of the rubric, or no grade from 0 to 3")
        if not (comment is None or isinstance(comment, str)):
            raise ValueError("the comment is no text")
        comment = (comment or "").encode("utf-8", "replace").decode().strip()[:COMMENT] or None
        said = (label, grade, self.annotator, comment)
        with self._lock:
            if self._state() != self._seen:
                raise UsageError(f"{self.path} was changed by something else; start selfplay view again")
            rows = {**self.rows, key: {**row, **dict(zip(ADDED, said, strict=True))}}
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_lines(self.path, rows.values())
            except OSError as error:
                raise UsageError(f"{self.path}: cannot write it: {error.strerror}") from None
            self.rows, self._seen = rows, self._state()

    def _state(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _read(self) -> None:
        bad = Quarantine()
        for table in iter_turn_rows(str(self.path), bad):
            for values in table.iter_rows(named=True):
                row = json.loads(values["row"])
                if row.get("annotator") != self.annotator:
                    whose = f"by {one_line(row['annotator'], 60)!r}" if row.get("annotator") else "that no person gave"
                    raise UsageError(f"--annotate {self.path}: it holds labels {whose}; give each annotator a file")
                if row.get("label") not in list(Label):
                    raise UsageError(f"--annotate {self.path}: a row in it has no label; give another file")
                self.rows[opaque_id(values)] = row
        if bad.bad or not self.rows:
            raise UsageError(f"--annotate {self.path}: it holds other things than labelled turns; give another file")
