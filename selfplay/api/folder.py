"""What a verb has finished, in its folder: to be read, exported, reported on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfplay.api.calling import Source, call
from selfplay.results import Results, open_results

if TYPE_CHECKING:
    from selfplay.api.turns import Turns


class Folder:
    """A finished folder of `run`, `sample`, `clean` or `play`.

    Attributes:
        path: Where it is.
        verb: `run` (of `sample` too), `clean` or `play`.
        record: Its `run.json`: settings, versions, counts, `summary`.
    """

    def __init__(self, results: Results) -> None:
        self._results = results
        self.path, self.verb = results.folder, results.verb
        self.record: Mapping[str, Any] = results.record

    def __repr__(self) -> str:
        return f"<Folder of {self.verb}: {self.path}>"

    def conversations(self, dropped: bool = False) -> Iterator[dict[str, Any]]:
        """The conversations of a clean or play, as they stand in its files, one at a time.

        Args:
            dropped: Those that a clean did not keep too, after the others.

        Raises:
            UsageError: This is a run, which has none; a file is damaged.
        """
        return self._results.conversations(dropped)

    def turns(self) -> Turns:
        """All user turns with what is known of them, in memory; of cleaned data its own.

        Raises:
            UsageError: A file is damaged.
        """
        from selfplay.api.turns import of_results

        return of_results(self._results)

    def export(self, out: Source, format: str | Sequence[str] = "prompt-completion", **options: Any) -> dict[str, Any]:
        """Writes the forms that trainers read, as `selfplay export` does.

        Args:
            out: Folder to write.
            format: One or several of prompt-completion, messages, assistant, dpo, kto, reward, openai, sharegpt, hub.
            options: Those of `selfplay export`: file_type, validation, side, pairs, margin, column …

        Returns:
            Rows by format and split, as `{"kto": {"train": 12}}`.

        Raises:
            TypeError: There is no such option.
            UsageError: A format that does not fit, nothing to export, an `out` that holds something else.
        """
        call("export", [self.path], {"quiet": True, **options, "format": format_list(format), "out": out})
        rows: dict[str, Any] = json.loads(Path(out, "export.json").read_bytes())["rows"]
        return rows

    def report(self, out: Source = "report.html", **options: Any) -> Path:
        """Writes one page with figures and every conversation, as `selfplay report` does; returns where it is.

        Raises:
            TypeError: There is no such option; `selfplay report` has sites and by.
            UsageError: `out` is there and is no report.
        """
        call("report", [self.path], {**options, "out": out})
        return Path(out)


def folder(path: Source) -> Folder:
    """What `run`, `sample`, `clean` or `play` has finished in a folder.

    Raises:
        UsageError: No such folder, none of ours, not finished, damaged.
    """
    return Folder(open_results(Path(path)))


def format_list(format: str | Sequence[str]) -> list[str]:
    """One format as a list of them."""
    return [format] if isinstance(format, str) else list(format)
