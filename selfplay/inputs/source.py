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
