"""Agreement as lines for people, and as one JSON value for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from filters.agreement import Figure, agreement
from filters.labels import PRECEDENCE
from selfplay.judge.raters import Matched, Rater, match, read_raters
from selfplay.terminal import printable

STATISTICS = {
    "agree": "same label",
    "cohen_genuine": "Cohen's kappa, genuine or not",
    "cohen_label": "Cohen's kappa, labels",
    "cohen_grade": "Cohen's kappa, grades (quadratic)",
    "fleiss_genuine": "Fleiss' kappa, genuine or not",
    "fleiss_label": "Fleiss' kappa, labels",
    "krippendorff_genuine": "Krippendorff's alpha, genuine or not",
    "krippendorff_label": "Krippendorff's alpha, labels",
    "krippendorff_grade": "Krippendorff's alpha, grades (ordinal)",
}


def compare(paths: Sequence[str], replicates: int, seed: int) -> dict[str, Any]:
    """Reads the files and computes all figures: JSON types.

    Raises:
        UsageError: As `read_raters` and `match`.
    """
    raters, quarantine = read_raters(paths)
    matched = match(raters)
    found = plain(agreement(matched.ratings, replicates, seed))
    return {**about(raters, matched), "bad_rows": quarantine.bad, **found}


def about(raters: Sequence[Rater], matched: Matched) -> dict[str, Any]:
    """What was compared, and what could not be."""
    return {
        "matched_by": matched.by,
        "turns": len(matched.ratings.labels),
        "conversations": len(set(matched.ratings.conversations.tolist())),
        "raters": [
            {
                "name": rater.name,
                "file": rater.source,
                "rows": len(rater.rated),
                "invalid": rater.invalid,
                "unmatched": matched.unmatched[rater.name],
                "repeated": matched.repeated[rater.name],
            }
            for rater in raters
        ],
        "equal_id_other_text": matched.differing,
        "labels": [label.value for label in PRECEDENCE],
    }


def plain(value: Any) -> Any:
    """Figures as objects, all else as it is."""
    if isinstance(value, Figure):
        return asdict(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def lines(found: dict[str, Any]) -> Iterator[str]:
    """What `compare` found, for people."""
    clusters = found["conversations"]
    yield f"{found['turns']:,} turns of {clusters:,} conversations, matched by {found['matched_by']}"
    for rater in found["raters"]:
        notes = [f"{rater[key]:,} {key}" for key in ("invalid", "unmatched", "repeated") if rater[key]]
        yield f"  {printable(rater['name'])}: {rater['rows']:,} rows" + "".join(f", {note}" for note in notes)
    if found["equal_id_other_text"]:
        yield f"  {found['equal_id_other_text']:,} rows have the id of another turn and were left out"
    if found["bad_rows"]:
        yield f"  {found['bad_rows']:,} bad rows left out"
    for pair in found["pairs"]:
        first, second = (printable(name) for name in pair["raters"])
        yield ""
        yield f"{first} × {second}, {pair['n']:,} turns labelled by both"
        yield from (f"  {STATISTICS[key]:40}{shown(pair[key])}" for key in STATISTICS if key in pair)
        yield from table(pair["confusion"], first, second)
    together = found["together"]
    yield ""
    yield "all raters"
    yield from (f"  {STATISTICS[key]:40}{shown(together[key])}" for key in STATISTICS if key in together)
    yield "95 % intervals by bootstrap over conversations"


def shown(figure: dict[str, Any]) -> str:
    """A figure with its interval and n."""
    if figure["value"] is None:
        return "–  (nothing to compare)" if not figure["n"] else f"–  (only one value was used, n={figure['n']:,})"
    interval = "[too few]" if figure["low"] is None else f"[{figure['low']:.3f}, {figure['high']:.3f}]"
    return f"{figure['value']:6.3f} {interval}  n={figure['n']:,}"


def table(counts: list[list[int]], first: str, second: str) -> Iterator[str]:
    """The confusion table, without labels that neither used."""
    used = [i for i in range(len(counts)) if any(counts[i]) or any(row[i] for row in counts)]
    if not used:
        return
    yield f"  rows {first}, columns {second}; a column has the number of its label"
    width = max(5, *(len(str(counts[i][j])) + 1 for i in used for j in used))
    yield " " * 28 + "".join(f"{i + 1:>{width}}" for i in used)
    for i in used:
        yield f"  {i + 1} {PRECEDENCE[i].value:24}" + "".join(f"{counts[i][j] or '·':>{width}}" for j in used)
