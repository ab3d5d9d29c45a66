"""Bad rows: each is counted and written down with where and why, and none of them ends a run by itself.

Reasons read `kind: detail`; they are counted by kind. The file holds one JSON object per bad row, plain ASCII,
so that printing it is safe whatever the row held.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import TracebackType

from selfplay.core import Origin
from selfplay.errors import SelfplayError, TooManyBadRows, UsageError
from selfplay.inputs.source import keep_apart

ROW_CHARS = 2_000
"""How much of a bad row's raw text is kept."""


class BadRow(Exception):
    """Raised while one row is read; the reader turns it into a quarantine entry. Its text is the reason."""


def parse_max_bad(value: str | int | None) -> tuple[int | None, float | None]:
    """Reads `--max-bad`: a count (`25`) or a share of all rows (`1%`).

    Returns:
        (count, share); one of them is None, both are None where there is no limit. A share lies in 0..1.

    Raises:
        UsageError: Neither a whole number nor a percentage from 0 to 100.
    """
    if value is None:
        return None, None
    text = str(value).strip()
    if text.isascii() and text.isdigit():
        return int(text), None
    if text.endswith("%"):
        try:
            share = float(text[:-1]) / 100
        except ValueError:
            share = -1.0
        if 0 <= share <= 1:
            return None, share
    raise UsageError(f"--max-bad {text!r}: give a count such as 25, or a share such as 1%")


class Quarantine:
    """Collects bad rows of one run.

    The file is written anew each time, since a resumed run reads its input from the start; it is there at the end
    only if a row is bad.

    Attributes:
        path: Where the rows go; None only counts them.
        rows: Rows read so far, good and bad. The reader counts it up.
        bad: Rows that went here. Several sites of one row, added one after another, are one bad row.
        counts: Entries by kind of reason.
        first: The first entry of each kind as written, for reports; of `keep_first` kinds at most.
    """

    def __init__(
        self,
        path: Path | str | None = None,
        max_bad: str | int | None = None,
        keep_first: int = 10,
        source: str | None = None,
    ) -> None:
        """Raises UsageError if `max_bad` makes no sense, SelfplayError if the file can't be written.

        Args:
            source: The input, which must not be overwritten by its own bad rows.
        """
        self._count, self._share = parse_max_bad(max_bad)
        self.path = None if path is None else Path(path)
        self.rows = 0
        self.bad = 0
        self.counts: Counter[str] = Counter()
        self.first: list[dict[str, str | int]] = []
        self._keep_first = keep_first
        self._last: Origin | None = None
        self._file = None
        if self.path is not None:
            if source is not None:
                keep_apart(source, self.path, "--quarantine")
            try:
                self._file = self.path.open("w", encoding="ascii")
            except OSError as error:
                raise SelfplayError(f"cannot write {self.path}: {error.strerror}") from None

    def add(
        self, origin: Origin, reason: str, row: str | None = None, site_id: str | None = None, rows: int = 1
    ) -> None:
        """Puts one row, or one site of a row, aside.

        Args:
            origin: File and 1-based line (JSONL) or row (Parquet, Arrow) it came from.
            reason: `kind: detail`; counted by kind.
            row: The raw text as far as known; cut at 2,000 characters.
            site_id: The site, where the row is fine but one place in it is not (over the model's context).
            rows: How many rows this entry stands for, e.g. those in an unreadable part of a Parquet file.

        Raises:
            TooManyBadRows: More bad rows than the count allows. A share is decided by `check`.
        """
        if site_id is None or origin != self._last:
            self.bad += rows
        self._last = origin if site_id is not None else None
        kind = reason.split(": ", 1)[0]
        new = kind not in self.counts
        self.counts[kind] += rows
        entry: dict[str, str | int] = {"file": origin.file, "line": origin.line, "reason": reason}
        if rows != 1:
            entry["rows"] = rows
        if site_id is not None:
            entry["site_id"] = site_id
        if row is not None:
            entry["row"] = row[:ROW_CHARS]
        if new and len(self.first) < self._keep_first:
            self.first.append(entry)
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")
        if self._count is not None and self.bad > self._count:
            self._fail(f"more than {self._count} bad {'row' if self._count == 1 else 'rows'}")

    def check(self) -> None:
        """Decides at the end whether there were too many bad rows.

        Raises:
            TooManyBadRows: More than `max_bad` allows, or every row is bad (no limit allows that).
        """
        if self._share is not None and self.bad > self._share * self.rows:
            self._fail(f"{self.bad:,} of {self.rows:,} rows are bad, more than {100 * self._share:g}%")
        if self.rows and self.bad >= self.rows:
            self._fail("the only row is bad" if self.rows == 1 else f"all {self.rows:,} rows are bad")

    def summary(self) -> dict[str, int]:
        """Bad entries by kind of reason, the commonest first."""
        return dict(self.counts.most_common())

    def close(self) -> None:
        """Flushes and closes the file, and removes it if no row is bad. Safe to call twice."""
        if self._file is not None:
            self._file.close()
            self._file = None
            if self.path is not None and not self.counts and self.path.is_file():
                self.path.unlink()

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _fail(self, what: str) -> None:
        self.close()
        reasons = ", ".join(f"{count:,} × {kind}" for kind, count in self.counts.most_common(3))
        where = f"; see {self.path}" if self.path is not None else ""
        if not where and self.first:
            where = f"; the first in {self.first[0]['file']}, line {self.first[0]['line']}"
        raise TooManyBadRows(f"{what} ({reasons}){where}")
