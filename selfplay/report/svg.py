"""A matplotlib picture as part of a page: colours follow the page's theme, and no inline style needs to be allowed."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THEMED: Mapping[str, str] = {
    "#010203": "var(--ink)",
    "#040506": "var(--faint)",
    "#070809": "var(--line)",
    "#0a0b0c": "var(--good)",
    "#0d0e0f": "var(--bad)",
}
"""Colours that stand for the page's own. Nothing else in a picture has them."""
INK, FAINT, LINE, GOOD, BAD = THEMED
SVG = "http://www.w3.org/2000/svg"
RC: Mapping[Any, Any] = {
    "svg.hashsalt": "selfplay",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
}
"""Settings for `matplotlib.rc_context`. Text stays text, so that it can be read aloud, searched and never is maths."""


def inline(figure: Figure, name: str, described: str) -> str:
    """The figure as an `svg` element.

    Args:
        name: Makes its ids differ from those of other pictures in the page.
        described: What a screen reader says instead.
    """
    written = io.BytesIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ElementTree.fromstring(written.getvalue())  # noqa: S314 - matplotlib's, made above
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{{{SVG}}}style" or child.tag.endswith("metadata"):
                parent.remove(child)
    for element in root.iter():
        for key, value in declarations(element.attrib.pop("style", "")).items():
            element.set(key, value)
        for key, value in list(element.attrib.items()):
            if key == "id":
                element.set(key, f"{name}-{value}")
            else:
                element.set(key, re.sub(r"(url\(#|^#)(?=[A-Za-z])(?![0-9a-fA-F]{6}$)", rf"\g<1>{name}-", value))
            if key in ("fill", "stroke"):
                element.set(key, THEMED.get(value, value))
    for size in ("width", "height"):
        del root.attrib[size]
    root.set("role", "img")
    root.set("aria-label", described)
    root.set("class", "plot")
    return ElementTree.tostring(root, encoding="unicode")


def declarations(style: str) -> dict[str, str]:
    """What a style attribute says, as presentation attributes; SVG knows no shorthand `font` there."""
    found: dict[str, str] = {}
    for part in style.split(";"):
        name, colon, value = (text.strip() for text in part.partition(":"))
        if colon and name == "font":
            size = re.search(r"([\d.]+)px", value)
            found |= {"font-size": size.group(1)} if size else {}
        elif colon:
            found[name] = value
    return found
