"""The input of a run as a file that can be read again: named, hashed, and stdin kept for as long as needed."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfplay.errors import UsageError

CHUNK = 1 << 20


@contextmanager
def readable(conversations: str) -> Iterator[str]:
    """A path that can be read more than once; what comes on stdin (`-`) is kept in a temporary file meanwhile."""
    if conversations != "-":
        if not Path(conversations).exists():
            raise UsageError(f"{conversations}: no such file or folder")
        yield conversations
        return
    with tempfile.TemporaryDirectory(prefix="selfplay-") as folder:
        path = Path(folder) / "stdin"
        with open(path, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file, CHUNK)
        yield str(path)


def keep_apart(source: str, written: str | Path, option: str) -> None:
    """Refuses to write onto the input, or into the folder that is the input.

    Raises:
        UsageError: Naming the option that says where to write.
    """
    if source == "-" or not Path(source).exists():
        return
    place, read = Path(written).resolve(), Path(source).resolve()
    if place == read or (place.is_file() and place.samefile(read)):
        raise UsageError(f"{option} {written}: that is the input; give another place")
    if read.is_dir() and place.is_relative_to(read):
        raise UsageError(f"{option} {written} lies in the input {source}; give a place outside it")


def content_hash(path: str) -> str:
    """Hash of a file's bytes, or of the names and bytes of all files in a folder. Resuming needs the same input."""
    digest = hashlib.blake2b(digest_size=16)
    root = Path(path)
    for file in sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]:
        digest.update(file.relative_to(root).as_posix().encode("utf-8", "surrogateescape") + b"\0")
        with open(file, "rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
