"""Verdicts kept by content, one JSON line each: what has been judged once is never paid for again.

Lines are only ever appended, each with one write, so that a kill loses what was in flight and nothing else; half a
line at the end is dropped when the file is opened again.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from selfplay.errors import SelfplayError, UsageError
from selfplay.judge.verdict import Verdict

FORMAT = "selfplay-judge-cache/1"
HEADER = json.dumps({"format": FORMAT}).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """A verdict and what it took; tokens are None where the server did not tell."""

    verdict: Verdict
    tokens_in: int | None
    tokens_out: int | None


def key_of(version: str, model: str, host: str, messages: list[Any], turn: str | list[str]) -> str:
    """Hash of all that decides a verdict: what judges are told, who judges where, and what is judged (two turns as a
    list, in their order)."""
    text = json.dumps([version, model, host, messages, turn], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Cache:
    """Verdicts by key, in memory and in a file. One process at a time may have it open.

    Args:
        path: None keeps verdicts for as long as the object lives.

    Raises:
        UsageError: The file is no such cache, or cannot be written.
        SelfplayError: Another process has it open.
    """

    def __init__(self, path: Path | None) -> None:
        self._entries: dict[str, Entry] = {}
        self._file = -1
        self._path = path
        self._ours = False
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            _lock(self._file, path)
            self._load(path)
            self._ours = True
        except OSError as error:
            self.close()
            raise UsageError(f"{path}: the cache of verdicts cannot be used: {error.strerror}") from None
        except BaseException:
            self.close()
            raise

    def get(self, key: str) -> Entry | None:
        """The entry of `key`, if there is one."""
        return self._entries.get(key)

    def put(self, key: str, entry: Entry) -> None:
        """Keeps an entry; it is in the file when this returns."""
        self._entries[key] = entry
        if self._file >= 0:
            self._write({"key": key, **asdict(entry.verdict), "in": entry.tokens_in, "out": entry.tokens_out})

    def close(self) -> None:
        """Flushes to disk and lets go of the file, which goes if there is no entry in it. Safe to call twice."""
        if self._file >= 0:
            os.fsync(self._file)
            if self._ours and self._path and not self._entries:
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _write(self, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode() + b"\n"
        while data:  # a disk that is full takes part of it, and raises then
            data = data[os.write(self._file, data) :]

    def _load(self, path: Path) -> None:
        with open(path, "rb") as file:
            head = file.readline()
            if head != HEADER and HEADER.startswith(head):  # new, or killed in its first write
                os.ftruncate(self._file, 0)
                self._write({"format": FORMAT})
                return
            if head != HEADER:
                raise UsageError(f"{path}: that is no cache of verdicts ({FORMAT}); give another file as --cache")
            whole = len(head)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                try:
                    row = json.loads(line)
                    verdict = Verdict(row["label"], row["groundedness"], row["reason"], row["error"], row.get("better"))
                    self._entries[row["key"]] = Entry(verdict, row["in"], row["out"])
                except (ValueError, LookupError, TypeError):
                    continue  # damaged: judged anew
        os.ftruncate(self._file, whole)


def _lock(file: int, path: Path) -> None:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SelfplayError(f"{path}: another selfplay is writing there; wait for it or give --cache") from None
