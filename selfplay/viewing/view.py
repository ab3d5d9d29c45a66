"""The verb's work: serves until it is interrupted."""

from __future__ import annotations

import signal
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

from selfplay.errors import UsageError
from selfplay.inputs.source import keep_apart
from selfplay.report.contents import gathered
from selfplay.results import open_results
from selfplay.viewing import annotating, browsing
from selfplay.viewing.drawing import draw
from selfplay.viewing.marked import Marked
from selfplay.viewing.server import Routes, Server

Say = Callable[[str], None]


def browse(folder: str, port: int, show: bool, say: Say, most: int, by: Sequence[str]) -> None:
    """The page of a report, until Ctrl-C.

    Raises:
        UsageError: The folder holds no finished results, or the port is taken.
    """
    say(f"reading {folder}")
    with gathered(open_results(folder), most, by, served=True) as contents:
        serve(browsing.routes(contents), port, show, say)


def annotate(folder: str, port: int, show: bool, say: Say, out: str, annotator: str, n: int, seed: int) -> None:
    """The sheet, until Ctrl-C; every mark is in `out` at once.

    Raises:
        UsageError: As `browse`; or `out` lies in the folder or holds something else.
    """
    results = open_results(folder)
    keep_apart(folder, out, "--annotate")
    marked = Marked(Path(out), annotator)
    items = draw(results, n, seed)
    if not items:
        raise UsageError(f"{folder} holds no turns, so there is nothing to label")
    done = sum(item["id"] in marked.rows for item in items)
    say(f"{len(items):,} turns in random order, {done:,} of them labelled by {annotator}")
    serve(annotating.routes(items, marked), port, show, say)
    say(f"{len(marked.rows):,} turns labelled by {annotator}, in {out}" if marked.rows else "nothing labelled")


def serve(routes: Routes, port: int, show: bool, say: Say) -> None:
    """Answers until Ctrl-C or SIGTERM."""
    with Server(routes, port) as server:
        say(f"{server.url}  (Ctrl-C ends)")
        if show:
            webbrowser.open(server.url)
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler ends it as Ctrl-C does
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGTERM, before)
