"""What lies at a path: which files, in which format, and their bytes uncompressed.

Content decides, not the name: a `.gz` that was unpacked on its way is read as the text it is.
"""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from selfplay.errors import UsageError

HEAD_BYTES = 1 << 16
ZSTD_CHUNK = 1 << 11
"""Compressed bytes per step: small, since a hostile frame can unpack 2 KiB into tens of MiB."""

DAMAGE = (EOFError, OSError, zlib.error)
"""What reading a truncated or damaged file raises (zstandard's own error is turned into OSError below)."""

BOM = b"\xef\xbb\xbf"
METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
ENDINGS = {
    "Parquet": (".parquet",),
    "JSONL": tuple(f".{name}{packed}" for name in ("jsonl", "ndjson") for packed in ("", ".gz", ".zst")),
    "Arrow": (".arrow",),
}
REFUSED = {
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"BZh": "bzip2: unpack it first (bunzip2)",
    b"\xfd7zXZ\x00": "xz: unpack it first (unxz)",
    b"\xff\xfe": "UTF-16: convert it (iconv -f UTF-16 -t UTF-8)",
    b"\xfe\xff": "UTF-16: convert it (iconv -f UTF-16 -t UTF-8)",
    b"version https://git-lfs": "a Git LFS pointer, not the data: fetch it (git lfs pull)",
    b"SQLite format 3": "an SQLite database: export it to JSONL",
    b"\x80\x04\x95": "a pickle, which is never loaded: export it to JSONL",
    b"<!doctype html": "a web page: download the data itself",
    b"<html": "a web page: download the data itself",
}


@dataclass(frozen=True, slots=True)
class Source:
    """One file of the input. `name` is what messages and origins call it; `path` is None for stdin."""

    name: str
    path: Path | None


def find_sources(path: str) -> list[Source]:
    """Lists the files of an input: a file, a dataset folder, or `-` for stdin.

    In a folder the files of `data/` are taken where it has any, else all below it, in order of their paths;
    what begins with `.` or `_`, cache files of the datasets library and our own quarantine are passed over.

    Raises:
        UsageError: Nothing there, not readable, no data in it, or several formats side by side.
    """
    if path == "-":
        return [Source("stdin", None)]
    where = Path(path)
    try:
        if where.is_dir():
            return [Source(str(file), file) for file in _folder(where)]
        if where.exists():
            return [Source(path, where)]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from None
    hub = ""
    if path.count("/") == 1 and not path.startswith(("/", ".")) and not where.parent.exists():
        hub = f"; from the Hugging Face Hub: hf download {path} --repo-type dataset --local-dir DIR"
    raise UsageError(f"{path}: no such file or folder{hub}")


def _folder(folder: Path) -> list[Path]:
    for base in (folder / "data", folder):
        files = [
            file
            for file in sorted(base.rglob("*"))
            if not any(part.startswith((".", "_")) for part in file.relative_to(base).parts)
            and not file.name.startswith("cache-")
            and file.name != "quarantine.jsonl"
            and file.is_file()
        ]
        found = {kind: [f for f in files if f.name.lower().endswith(ends)] for kind, ends in ENDINGS.items()}
        found = {kind: members for kind, members in found.items() if members}
        if len(found) > 1:
            kinds = " and ".join(found)
            raise UsageError(f"{base} holds {kinds} files, maybe the same data twice: give the files of one kind")
        if found:
            return next(iter(found.values()))
    others = [file.name for file in files if file.suffix == ".json" and file.name not in METADATA]
    hint = f"; give {others[0]} itself if that is the data" if others else ""
    raise UsageError(f"{folder}: no .parquet, .jsonl, .jsonl.gz, .jsonl.zst or .arrow file in this folder{hint}")


class Rewound(io.RawIOBase):
    """A stream whose first bytes were read already and come again, for pipes that cannot seek."""

    def __init__(self, head: bytes, rest: IO[bytes], keep_open: bool) -> None:
        self._head = head
        self._rest = rest
        self._keep_open = keep_open

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._head:
            piece, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        else:
            piece = self._rest.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        if not self._keep_open:
            self._rest.close()
        super().close()


class Unzstd(io.RawIOBase):
    """Zstandard frames, unpacked. The library's own reader ends silently where a file is cut off; this one raises."""

    def __init__(self, packed: IO[bytes]) -> None:
        import zstandard

        self._packed = packed
        self._new = zstandard.ZstdDecompressor().decompressobj
        self._frame = self._new()
        self._error = zstandard.ZstdError
        self._input = b""
        self._output = b""
        self._inside = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            chunk = self._input or self._packed.read(ZSTD_CHUNK)
            self._input = b""
            if not chunk:
                if self._inside:
                    raise EOFError("Compressed file ended before the end of a zstd frame")
                return 0
            try:
                self._output = self._frame.decompress(chunk)
            except self._error as error:
                raise OSError(str(error)) from None
            self._inside = not self._frame.eof
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._frame = self._new()
        piece, self._output = self._output[: len(buffer)], self._output[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._packed.close()
        super().close()


def open_source(source: Source) -> tuple[str, IO[bytes]]:
    """Opens one file and looks at its first bytes.

    Returns:
        Format (`jsonl`, `json array`, `parquet`, `arrow`) and its bytes, those of the first two uncompressed.

    Raises:
        UsageError: Not readable, or plainly no format we read; the message names the mend.
    """
    if source.path is None and sys.stdin is None:
        raise UsageError("stdin is closed")
    try:
        stream: IO[bytes] = sys.stdin.buffer if source.path is None else source.path.open("rb")
        head = stream.read(HEAD_BYTES)
    except OSError as error:
        raise UsageError(f"{source.name}: {error.strerror}") from None
    stream = io.BufferedReader(Rewound(head, stream, keep_open=source.path is None))
    if head.startswith(b"PAR1"):
        return "parquet", stream
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow", stream
    packed = None
    if head.startswith(b"\x1f\x8b"):
        packed, stream = "gzip", io.BufferedReader(gzip.GzipFile(fileobj=stream))
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        packed, stream = "zstd", io.BufferedReader(Unzstd(stream))
    if packed:
        try:
            # As much as one step of unpacking gives; damage shows up again, and is written down, when rows are read.
            head = stream.peek(HEAD_BYTES)
        except DAMAGE:
            head = b"{"
    _refuse(source.name, head)
    return "json array" if _is_array(head) else "jsonl", stream


def _refuse(name: str, head: bytes) -> None:
    """Raises UsageError for what is plainly no JSONL; single bad rows are not its business."""
    start = head.removeprefix(BOM).lstrip()
    for magic, mend in REFUSED.items():
        if start[: len(magic)].lower() == magic.lower():
            raise UsageError(f"{name}: this is {mend}")
    inner = name.lower().removesuffix(".gz").removesuffix(".zst")
    if start[257:262] == b"ustar" or inner.endswith(".tar"):
        raise UsageError(f"{name}: this is a tar archive: unpack it first (tar xf)")
    if inner.endswith((".csv", ".tsv")) and not start.startswith(b"{"):
        mend = "import polars as pl; pl.read_csv('FILE').write_ndjson('FILE.jsonl')"
        raise UsageError(f'{name}: CSV is not read; convert it to JSONL (python -c "{mend}")')
    lines = start.split(b"\n")
    if b"\0" in start and not any(line.lstrip().startswith(b"{") for line in lines):
        raise UsageError(f"{name}: this is binary, neither JSONL nor Parquet nor Arrow")


def _is_array(head: bytes) -> bool:
    """Whether text is one JSON array of objects, and not JSONL whose first row is a list or broken."""
    start = head.removeprefix(BOM).lstrip()
    if not start.startswith(b"[") or start[1:].lstrip()[:1] not in (b"{", b"]", b""):
        return False
    first, second = (*[line.strip() for line in start.split(b"\n") if line.strip()], b"")[:2]
    if first == b"[" or not second:
        return True
    return not first.endswith(b"]") and not (second.startswith(b"{") and second.endswith(b"}"))
