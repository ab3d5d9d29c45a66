"""What the server answers to the page of a report, whose chunks it hands out one by one."""

from __future__ import annotations

import threading

from selfplay.report.contents import Contents
from selfplay.report.writing import page
from selfplay.viewing.server import Answer, Routes

HTML = "text/html; charset=utf-8"


def routes(contents: Contents) -> Routes:
    """The page, and its chunks."""
    shown = "".join(page(contents)).encode("utf-8", "replace")
    lock = threading.Lock()  # chunks come out of one file

    def answer(method: str, path: str, body: bytes) -> Answer | None:
        folder, _, number = path.partition("/")
        if method != "GET":
            return None
        if not path:
            return Answer(shown, HTML)
        if folder != "chunk" or not (number.isascii() and number.isdecimal() and len(number) < 10):
            return None
        with lock:
            try:
                return Answer(contents.chunk(int(number)), "application/octet-stream")
            except IndexError:
                return None

    return answer
