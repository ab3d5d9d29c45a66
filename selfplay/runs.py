"""The folder of a run: `run.json`, and Parquet parts that are there whole or not at all.

    run.json            configuration, versions, counts, timings
    sites/part-*.parquet    the contexts, once each
    sampled/part-*.parquet  the candidates as sampled
    turns/part-*.parquet    the same candidates with signals, label, groundedness, rank, selected
    rounds/             while --until-survivors is at work: the same three kinds, for sites that are not whole yet
    failed.jsonl        sites that an engine gave up on; the next start tries them again

Parts of the three kinds have equal numbers and hold the same sites, each site whole but in `rounds/`. Knows nothing
of engines.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from selfplay.atomic import replacing
from selfplay.config import differences
from selfplay.core import Site
from selfplay.errors import SelfplayError, UsageError

if TYPE_CHECKING:
    import polars as pl

KINDS = ("sites", "sampled", "turns")
"""In the order they are written: a part of one kind counts only with those before it."""
FILES = (
    "failed.jsonl",
    "quarantine.jsonl",
    "engine.log",
    "turns.jsonl",
    "chosen.jsonl",
    "rejected.parquet",
    "pairs.jsonl",
)
FORMAT = 1
LEFTOVER = ".*.tmp"
"""What a kill leaves of a file that was being written."""


class Parts:
    """A folder with numbered parts of each of `kinds`, which are written in their order."""

    kinds: tuple[str, ...] = KINDS

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, kind: str, number: int) -> Path:
        """Where a part lies, whether it is there or not."""
        return self.folder / kind / f"part-{number:06d}.parquet"

    def parts(self, kind: str) -> list[int]:
        """Numbers of the parts there are, in order."""
        return sorted(int(path.stem[5:]) for path in (self.folder / kind).glob("part-*.parquet"))

    def write(self, kind: str, number: int, table: pl.DataFrame) -> None:
        """Writes a part atomically. Raises SelfplayError if it cannot, as on a full disk."""
        with replacing(self.path(kind, number)) as path, writing(path):
            table.write_parquet(path, compression="zstd")

    def read(self, kind: str, number: int, columns: list[str] | None = None) -> pl.DataFrame:
        """One part, or some columns of it."""
        import polars as pl

        path = self.path(kind, number)
        try:
            return pl.read_parquet(path, columns=columns)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise SelfplayError(f"{path} is damaged ({error}); delete it and run again: it is made anew") from None

    def first(self, kind: str) -> dict[int, int]:
        """The first site in reading order of each part that has any."""
        found = {number: self.read(kind, number, ["ordinal"])["ordinal"].min() for number in self.parts(kind)}
        return {number: least for number, least in found.items() if isinstance(least, int)}

    def remove(self, number: int) -> None:
        """Removes a part of every kind. A kill in between leaves what `tidy` removes."""
        for kind in self.kinds:
            self.path(kind, number).unlink(missing_ok=True)

    def unfinished(self) -> Iterator[int]:
        """Numbers of parts that were sampled and not yet filtered and ranked."""
        yield from sorted(set(self.parts("sampled")) - set(self.parts("turns")))

    def make(self) -> None:
        """Makes the folders of all kinds."""
        for kind in self.kinds:
            (self.folder / kind).mkdir(parents=True, exist_ok=True)

    def tidy(self) -> None:
        """Removes what a kill left half done, and parts whose earlier kinds were deleted: they are made anew."""
        for place in (self.folder, *(self.folder / kind for kind in self.kinds)):
            for leftover in place.glob(LEFTOVER):
                leftover.unlink()
        whole = set(self.parts(self.kinds[0])) & set(self.parts(self.kinds[1]))
        for kind in self.kinds:
            for number in set(self.parts(kind)) - whole:
                self.path(kind, number).unlink()


class Ordinals:
    """A set of ordinals: one byte a site, so that a million cost a megabyte."""

    def __init__(self) -> None:
        self._marks = bytearray()

    def add(self, ordinal: int) -> None:
        """Takes in an ordinal."""
        self._marks.extend(bytes(max(0, ordinal + 1 - len(self._marks))))
        self._marks[ordinal] = 1

    def __contains__(self, ordinal: int) -> bool:
        return ordinal < len(self._marks) and self._marks[ordinal] == 1


class Run(Parts):
    """An open run folder, locked against a second process.

    Args:
        folder: Created if missing.
        sample: Settings that decide what is sampled.
        select: Settings that decide what is kept, or None for a run that only samples.
        fresh: Start over: an earlier run's files in the folder are removed first.

    Raises:
        UsageError: The folder holds something else, another process works in it, or its run was made with other
            settings (the difference is in the message).

    Attributes:
        rounds: Parts of sites that are still being drawn at; made by who needs them.
    """

    verb = "run"
    files: tuple[str, ...] = FILES

    def __init__(
        self, folder: Path, sample: Mapping[str, Any], select: Mapping[str, Any] | None, fresh: bool = False
    ) -> None:
        super().__init__(folder)
        self.rounds = Parts(folder / "rounds")
        existed = folder.exists()
        # Nothing of somebody else's may be touched, so this comes before the lock and before --fresh.
        ours = {folder / ".lock", *folder.glob(f".run.json{LEFTOVER}")} if existed else set()
        if existed and not (folder / "run.json").exists() and set(folder.iterdir()) - ours:
            raise UsageError(f"{folder} is not empty and holds no run; name another folder with -o")
        if existed and _foreign(folder / "run.json", self.verb):
            raise UsageError(f"{folder}/run.json is not of a selfplay {self.verb}; name another folder with -o")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the folder {folder}: {error.strerror}") from None
        self._lock = self._take_lock()
        try:
            if fresh:
                self._clear()
            self.record = self._open(json.loads(json.dumps(sample)), json.loads(json.dumps(select)), fresh)
            self.save()
            self.make()
            self.tidy()
            self.rounds.tidy()
        except BaseException:
            self.close()
            raise

    def _take_lock(self) -> IO[str]:
        lock = open(self.folder / ".lock", "w")  # noqa: SIM115 - held as long as the run is open
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise UsageError(
                f"another process is working in {self.folder}; wait for it or name another folder"
            ) from None
        return lock

    def _clear(self) -> None:
        # All but run.json, which is replaced: without it a kill here would leave a folder that holds no run.
        for name in (*self.kinds, "rounds"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in self.files:
            (self.folder / name).unlink(missing_ok=True)

    def _open(self, sample: dict[str, Any], select: dict[str, Any] | None, fresh: bool) -> dict[str, Any]:
        path = self.folder / "run.json"
        new = {"format": FORMAT, "verb": self.verb, "sample": sample, "select": select, "status": "new", "sessions": []}
        if fresh or not path.exists():
            return new
        try:
            record = dict(json.loads(path.read_bytes()))
            known = record["format"] == FORMAT
            changed = differences(record["sample"], sample) if known else []
            if known and record["select"] is not None and select is not None:
                changed += differences(record["select"], select)
            record = new | record
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UsageError(f"{path} cannot be read; mend it, or start over with --fresh") from None
        if not known:
            raise UsageError(
                f"{self.folder} was made by another version of selfplay (format {record['format']!r}, this one has "
                f"{FORMAT}); use that version, name another folder, or start over with --fresh"
            )
        if changed and not self.begun():
            return new  # a start that came to nothing, say for a wrong model name, binds nobody
        if changed:
            raise UsageError(
                f"{self.folder} holds a run with other settings ({'; '.join(changed)}); "
                "give the same, name another folder, or start over with --fresh"
            )
        record["select"] = select if select is not None else record["select"]
        return record

    def begun(self) -> bool:
        """Whether anything has been sampled."""
        return bool(self.parts("sampled") or self.rounds.parts("sampled"))

    def save(self, **values: Any) -> None:
        """Updates `run.json`."""
        self.record |= values
        data = json.dumps(self.record, indent=2, ensure_ascii=False).encode()
        with replacing(self.folder / "run.json") as path:
            path.write_bytes(data)

    def ordinals(self) -> Ordinals:
        """Of the sites that have been sampled."""
        found = Ordinals()
        for number in self.parts("sampled"):
            for ordinal in self.read("sampled", number, ["ordinal"])["ordinal"].unique():
                found.add(ordinal)
        return found

    def sampled(self) -> Callable[[Site], bool]:
        """Tells of a site whether it has been sampled."""
        found = self.ordinals()
        return lambda site: site.ordinal in found

    def close(self) -> None:
        """Lets go of the lock."""
        self._lock.close()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around polars' writing: it calls a full disk a ComputeError. Raises SelfplayError."""
    import polars as pl

    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SelfplayError(f"cannot write {path}: {error}") from None


def _foreign(path: Path, verb: str) -> bool:
    """Whether this is another program's file, or another verb's: JSON, but not what `verb` records. A broken one may be
    ours."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return not (isinstance(record, dict) and "sample" in record and record.get("verb", "run") == verb)
