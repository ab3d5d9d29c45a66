"""What tests of reports share: hostile texts, folders that hold them, pages taken apart."""

from __future__ import annotations

import base64
import gzip
import html.parser
import json
from pathlib import Path
from typing import Any

from selfplay.report.writing import write_report
from tests.folders import CONTEXT, candidate, run_folder

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    '"><svg onload=alert(3)>',
    "{{ 7 * 7 }}{% raw %}",
    "line\u2028separator\u2029s",
    "bidi \u202egnp.exe\u202c \u2066isolate\u2069",
    "NUL \0 and ANSI \x1b[31mred\x1b[0m \x07",
    "<!--<script>",
    "$\\frac{1}{2}$ &amp; &#x3c;",
    "javascript:alert(4)",
)


def hostile_folder(folder: Path) -> Path:
    """A run in which every text that comes from outside is hostile, names and columns as well."""
    contexts = {}
    sites = []
    for number, text in enumerate(HOSTILE):
        said = [{"role": role, "content": text} for role in (text, "assistant")]
        contexts[f"c{number}"] = [*CONTEXT[:-1], *said]
        quote = f'repeats 1 >= 1; "{text[:20]}"'
        sites.append([
            candidate(text, 0.9, 0.9, model=text),
            candidate(f"{text} {text}", 0.4, 0.2, "flagged", model="plain", rule=f"rule {text}", evidence=quote),
        ])  # fmt: skip
    extra = {"domain": HOSTILE[0], HOSTILE[1]: HOSTILE[2], "nested": {"deep": HOSTILE[3]}}
    return run_folder(folder, [sites], contexts, extra, input={"rows": 10, "bad_by_reason": {HOSTILE[1]: 2}})


def report(folder: Path, out: Path, most: int = 10_000, by: tuple[str, ...] = ()) -> str:
    """The page that is written."""
    list(write_report(str(folder), str(out), most, by))
    return out.read_text("utf-8")


class Page(html.parser.HTMLParser):
    """Tags, addresses, inline scripts and styles, and the packed data, as a browser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.inside: dict[str, list[str]] = {}
        self.text = ""
        self._open: list[str] = []
        self._id = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        named = dict(attrs)
        self._id = named.get("id") or ""
        self._open = [tag]
        if tag in ("script", "style"):
            self.inside.setdefault(f"{tag}#{self._id}", []).append("")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[0] in ("script", "style"):
            self.inside[f"{self._open[0]}#{self._id}"][-1] += data
        else:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._open = []
        self.text += " "

    def packed(self, name: str) -> Any:
        """The data in an element."""
        return json.loads(gzip.decompress(base64.b64decode(self.inside[f"script#{name}"][0])))

    def chunks(self) -> list[list[dict[str, Any]]]:
        """All chunks in order."""
        count = sum(name.startswith("script#chunk-") for name in self.inside)
        return [self.packed(f"chunk-{number}") for number in range(count)]
