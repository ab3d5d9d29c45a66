"""What the server answers while somebody labels turns: a sheet that tells nothing of them, and a place for marks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from selfplay.errors import UsageError
from selfplay.judge.sheet import as_html
from selfplay.viewing.browsing import HTML
from selfplay.viewing.marked import Marked
from selfplay.viewing.server import Answer, Routes


def routes(items: Sequence[dict[str, Any]], marked: Marked) -> Routes:
    """The sheet with what has been said so far, and `mark`, which takes what is said of one turn."""
    rows = {item["id"]: item["row"] for item in items}

    def answer(method: str, path: str, body: bytes) -> Answer | None:
        if (method, path) == ("GET", ""):
            marks = {key: mark for key, mark in marked.marks().items() if key in rows}
            return Answer(as_html(items, marks), HTML)
        if (method, path) != ("POST", "mark"):
            return None
        try:
            mark = json.loads(body)
            marked.give(mark["id"], rows[mark["id"]], mark)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            return Answer(f"no mark of ours: {error}".encode("utf-8", "replace"), status=HTTPStatus.BAD_REQUEST)
        except UsageError as error:
            return Answer(str(error).encode("utf-8", "replace"), status=HTTPStatus.CONFLICT)
        return Answer(b"saved")

    return answer
