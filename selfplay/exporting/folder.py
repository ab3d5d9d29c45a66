"""The folder of an export: made aside, put in place when it is whole, and told from folders that are not ours."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfplay.atomic import replacing
from selfplay.errors import UsageError

RECORD = "export.json"
CARD = "README.md"


@contextmanager
def replaced(out: Path, source: Path, overwrite: bool) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder to write files into, and a record to fill; when the block ends well the files stand in `out`.

    What an earlier export wrote there is removed first, and nothing else is. The record becomes `export.json`, which
    also tells what was written.

    Raises:
        UsageError: `out` is a file, lies in the source or around it, or holds something that is not ours.
    """
    _check(out, source, overwrite)
    aside = out.with_name(f".{out.name}.export.tmp")
    record: dict[str, Any] = {}
    try:
        shutil.rmtree(aside, ignore_errors=True)  # left by a kill
        aside.mkdir(parents=True)
        yield aside, record
        files = sorted(path.relative_to(aside).as_posix() for path in aside.rglob("*") if path.is_file())
        card = _hash(aside / CARD)
        for name in (earlier(out) or {}).get("files", []):
            old = out / name
            if old.resolve().is_relative_to(out.resolve()) and old.is_file():
                old.unlink()
        for name in files:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(aside / name, out / name)
        with replacing(out / RECORD) as path:
            whole = {"verb": "export", "format": 1, **record, "files": files, "card": card}
            path.write_text(json.dumps(whole, indent=2, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or out}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _check(out: Path, source: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; -o names a folder")
    here, there = out.resolve(), source.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise UsageError(
            f"-o {out} and {source} lie one in the other; nothing is written into results: name a place apart"
        )
    if overwrite or not out.exists() or not any(out.iterdir()):
        return
    before = earlier(out)
    if before is None:
        raise UsageError(f"{out} is not empty and holds no export; name another folder, or give --overwrite")
    if before.get("card") != _hash(out / CARD):
        raise UsageError(f"{out / CARD} was edited since it was written; name another folder, or give --overwrite")


def earlier(out: Path) -> dict[str, Any] | None:
    """The record of an export that is there."""
    try:
        record = json.loads((out / RECORD).read_bytes())
    except (OSError, ValueError):
        return None
    ours = isinstance(record, dict) and record.get("verb") == "export" and isinstance(record.get("files"), list)
    return record if ours and all(isinstance(name, str) for name in record["files"]) else None


def _hash(path: Path) -> str | None:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() if path.is_file() else None
