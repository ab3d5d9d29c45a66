"""Turns contents into one page that needs nothing else: no address is loaded, no text of others is markup."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from selfplay.atomic import replacing
from selfplay.errors import UsageError
from selfplay.report.contents import Contents, gathered
from selfplay.results import open_results
from selfplay.terminal import printable

SCRIPTS = ("data.js", "text.js", "filters.js", "list.js", "site.js", "keys.js", "main.js")
GENERATOR = "selfplay report"
POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src {connect}; base-uri 'none'; "
    "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Only our own script and style run, known by their hashes, and nothing goes out; what they make is never markup."""


def write_report(folder: str, out: str, most: int, by: Sequence[str] = ()) -> Iterator[str]:
    """Writes the page about the results in a folder; yields lines about it.

    Raises:
        UsageError: The folder holds no finished results, or `out` is something else or cannot be written.
    """
    results = open_results(folder)
    path = Path(out)
    refuse_other(path)
    with gathered(results, most, by) as contents:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as place, open(place, "w", encoding="utf-8", errors="replace", newline="\n") as file:
                file.writelines(page(contents, contents.chunks()))
        except OSError as error:
            raise UsageError(f"{out}: cannot write it: {error.strerror}") from None
        size = path.stat().st_size / 1e6
        held = f"{contents.shown:,}" + (f" of {contents.sites:,}" if contents.shown < contents.sites else "")
        yield f"{out}: {held} sites, {size:.1f} MB; open it in a browser"
        if not contents.pictures:
            yield "without pictures, since matplotlib is missing: pip install 'selfplay-turns[plot]'"


def page(contents: Contents, chunks: Iterable[bytes] = ()) -> Iterator[str]:
    """The page piece by piece, with the chunks that go into it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=PackageLoader("selfplay.report", "page"), finalize=_plain,
    )  # fmt: skip
    environment.filters["ours"] = Markup
    css = read("page.css")
    script = '"use strict";\n{\n' + "\n".join(map(read, SCRIPTS)) + "}\n"
    policy = POLICY.format(
        script=source_of(script), style=source_of(css), connect="'self'" if contents.options["served"] else "'none'"
    )
    return environment.get_template("page.html.jinja").generate(
        policy=policy,
        generator=GENERATOR,
        title=contents.title,
        lead=contents.lead,
        sections=contents.sections,
        css=Markup(css),  # noqa: S704 - ours, beside this file
        script=Markup(script),  # noqa: S704 - ours as well
        options=Markup(json.dumps(contents.options).replace("<", "\\u003c")),  # noqa: S704 - nothing can end the element
        index=_base64(contents.index),
        chunks=map(_base64, chunks),
    )


def read(name: str) -> str:
    """A file of the page."""
    return importlib.resources.files("selfplay.report").joinpath("page", name).read_text("utf-8")


def source_of(text: str) -> str:
    """How a content security policy names an inline script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def refuse_other(path: Path) -> None:
    """Raises UsageError where a file is there that is no report of ours."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; -o names a file")
    if not path.is_file():
        return
    with open(path, "rb") as file:
        if f'name="generator" content="{GENERATOR}"'.encode() not in file.read(4096):
            raise UsageError(f"{path} is there and is no report of ours; name another file with -o")


def _plain(value: object) -> object:
    """Text without hidden characters; what the browser of the page shows of them is its own business."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else printable(value)


def _base64(data: bytes) -> Markup:
    return Markup(base64.b64encode(data).decode())  # noqa: S704 - letters, digits, + / =
