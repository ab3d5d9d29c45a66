"""What the first page of a report says: sections of a text, a picture and a table. One with nothing to say is None."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from filters.labels import PRECEDENCE
from rerank.variety import Variety, compare
from selfplay.choosing import variety
from selfplay.report import plots
from selfplay.report.tally import CHOSEN, UNJUDGED, Tally
from selfplay.results import Results
from selfplay.summary import NO_RULE, estimate_line

RULES = 25
SAID = {label.value: label.value for label in PRECEDENCE} | NO_RULE
COUNTED = ("conversations", "turns", "messages_of_changed", "duplicates", "endings")
"""Of a summary."""
KEPT_BY_CLEANING = "kept"


@dataclass(frozen=True, slots=True)
class Section:
    """Part of the page.

    Attributes:
        name: Its anchor.
        picture: An `svg` element of ours, or nothing.
        head, rows: A table; the first column names the row.
        links: By row, what of the browser a click shows, as filters.
        folded: The table is shown on demand.
    """

    name: str
    title: str
    text: str = ""
    picture: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    links: Sequence[Mapping[str, str] | None] = ()
    folded: bool = False


def sections(results: Results, tally: Tally, texts: pl.DataFrame, pictures: bool) -> list[Section]:
    """All that have something to say.

    Args:
        texts: Turns of some sites, whole: `site_id, turn, selected, rejected_for`.
        pictures: Whether to draw any.
    """
    found = (
        flow(results, tally),
        *by_label(results, tally, pictures),
        rules(tally),
        groundedness(tally, pictures),
        yields(tally, pictures),
        varied(results, texts),
        settings(results),
    )
    return [section for section in found if section is not None]


def flow(results: Results, tally: Tally) -> Section:
    """What came in and out."""
    record = results.record
    given: Mapping[str, Any] = record["input"] if isinstance(record.get("input"), dict) else {}
    rows: list[tuple[str, str]] = []
    if "rows" in given:
        rows.append(("rows read", f"{given['rows']:,}"))
    for reason, count in (given.get("bad_by_reason") or {}).items():
        rows.append((f"  not usable: {reason}", f"{count:,}"))
    turns = "user turns" if results.verb == "clean" else "candidates"
    per_site = f"{tally.fewest}" if tally.fewest == tally.most else f"{tally.fewest} to {tally.most}"
    rows += [("conversations", f"{tally.conversations:,}"), ("sites", f"{tally.sites:,}")]
    if isinstance(record.get("failed"), int) and record["failed"]:
        rows.append(("sites that failed", f"{record['failed']:,}"))
    rows.append((turns, f"{tally.turns:,} ({per_site} per site)"))
    if tally.tokens:
        rows.append(("tokens generated", f"{tally.tokens:,}"))
    if tally.truncated:
        rows.append(("cut at the token limit", part(tally.truncated, tally.turns)))
    if not only_unjudged(tally):
        kept = kept_or_chosen(results)
        rows.append(("passed the rules", part(tally.passed, tally.turns)))
        if tally.most > 1:
            rows.append(("sites with no turn that passed", part(tally.barren, tally.sites)))
        rows.append((kept, chosen(tally)))
        rows += [
            (f"  not {kept}: {reason.replace('_', ' ')}", part(count, tally.turns))
            for reason, count in tally.outcomes.most_common()
            if reason not in (CHOSEN, UNJUDGED)
        ]
    if results.verb != "run" and isinstance(record.get("summary"), dict):
        rows += told(record["summary"])
    estimates = (record.get("summary") or {}).get("estimated_genuine") if results.verb != "clean" else None
    for name, what in (("before", f"estimated genuine, all {turns}"), ("after", "estimated genuine, chosen")):
        if isinstance(estimates, dict) and isinstance(estimates.get(name), dict):
            rows.append((what, estimate_line(estimates[name])))
    return Section("flow", "In and out", head=("", ""), rows=rows)


def told(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What cleaning and playing counted themselves."""
    counted = {name: summary[name] for name in COUNTED if isinstance(summary.get(name), Mapping)}
    found = [(name, value) for name, value in flattened(counted, plain=int) if "commonest" not in name and value != "0"]
    return [(name.replace(".", ": ").replace("_", " "), f"{int(value):,}") for name, value in found]


def chosen(tally: Tally) -> str:
    """How many turns, and at how many sites."""
    count = tally.outcomes[CHOSEN]
    return part(count, tally.turns) + ("" if count == tally.served else f", at {tally.served:,} sites")


def by_label(results: Results, tally: Tally, pictures: bool) -> Iterator[Section]:
    """Labels over all, and by each column that has several values."""
    if only_unjudged(tally):
        return
    names = [label.value for label in PRECEDENCE[::-1] if tally.labels[None, "", label.value]]
    names += sorted({label for column, _, label in tally.labels if column is None} - {*names})
    links = [{"label": name} for name in names]
    shares = {"all": share_of_labels(tally, None, "")}
    yield Section(
        "labels", "Labels", "A turn that no rule flags passes; that alone does not make it genuine.",
        plots.labels(shares, names, SAID, "labels") if pictures else "",
        ("label", "turns", kept_or_chosen(results)),
        [(SAID.get(n, n), part(tally.labels[None, "", n], tally.turns), part(tally.chosen[n], tally.chosen.total()))
         for n in names],
        links, bool(pictures),
    )  # fmt: skip
    for number, column in enumerate(tally.columns()):
        values = tally.values(column)
        shares = {value: share_of_labels(tally, column, value) for value in values}
        totals = [sum(tally.labels[column, value, name] for name in names) for value in values]
        rows = [(SAID.get(n, n), *(f"{shares[value].get(n, 0):.1%}" for value in values)) for n in names]
        more = f"The picture shows the first {plots.PANELS}." if len(values) > plots.PANELS and pictures else ""
        yield Section(
            f"labels-{number}", f"Labels by {column}", more,
            plots.labels(shares, names, SAID, f"labels-{number}") if pictures else "",
            ("label", *values),
            [*rows, ("turns", *(f"{total:,}" for total in totals))], [*links, None], bool(pictures),
        )  # fmt: skip


def rules(tally: Tally) -> Section | None:
    """Which rules fired how often."""
    if not tally.rules:
        return None
    found = tally.rules.most_common(RULES)
    left = len(tally.rules) - len(found)
    text = "What flagged the turns." + (f" {left} rarer rules are left out." if left else "")
    rows = [(rule, label, part(count, tally.turns)) for (label, rule), count in found]
    links = [{"rule": rule} for (_, rule), _ in found]
    return Section("rules", "Rules that fired", text, head=("rule", "label", "turns"), rows=rows, links=links)


def groundedness(tally: Tally, pictures: bool) -> Section | None:
    """How it is distributed."""
    if not any(bins.sum() for bins in tally.grounded.values()):
        return None
    shown = {state: bins for state, bins in tally.grounded.items() if bins.sum()}
    rows = [
        (f"{i / 10:.1f} to {(i + 1) / 10:.1f}", *(f"{bins[2 * i : 2 * i + 2].sum():,}" for bins in shown.values()))
        for i in range(10)
    ]
    return Section(
        "groundedness", "Groundedness", "How much a turn reacts to this very answer, 0 to 1, by the ranking model.",
        plots.groundedness(tally.grounded) if pictures else "", ("groundedness", *shown), rows, folded=pictures,
    )  # fmt: skip


def yields(tally: Tally, pictures: bool) -> Section | None:
    """What more candidates bring, and cost."""
    if tally.most < 2 or only_unjudged(tally):
        return None
    head = ["first N candidates", "sites with a turn to choose", "groundedness of the best"]
    rows = []
    for n, at in tally.at.items():
        best = f"{at.best / at.served:.2f}" if at.best else "–"
        rows.append([f"{n}", part(at.served, tally.sites), best])
        if tally.tokens:
            each = f"{at.tokens / at.served:,.0f}" if at.served else "–"
            rows[-1] += [f"{at.tokens:,}", each]
    head += ["tokens", "tokens per such site"] if tally.tokens else []
    text = "In the order of drawing. A turn to choose is one that nothing bars: no rule, no token limit, no minimum."
    if tally.fewest < tally.most:
        text += " A site with fewer candidates counts with those it has."
    return Section(
        "yield", "Yield and cost over N", text, plots.yields(tally.at, tally.sites) if pictures else "", head, rows
    )


def varied(results: Results, texts: pl.DataFrame) -> Section | None:
    """What choosing or cleaning did to variety."""
    kept = texts.filter("selected")
    if kept.is_empty() or (results.verb == "clean" and len(kept) == len(texts)):
        return None
    if results.verb == "clean":
        every = texts.sort(pl.col("turn").hash(seed=0)).head(len(kept))["turn"].to_list()
        columns = dict(zip(("before", "kept"), compare([every, kept["turn"].to_list()]), strict=True))
        text = "Random turns of the data as it came, as many as were kept, beside those."
        loss = None
    else:
        # A run has measured it already, on the same turns.
        measured = (results.record.get("summary") or {}).get("variety") or variety.measure(texts)
        columns = {name: Variety(**measured[name]) for name in ("candidate", "survivor", "selected")}
        columns = dict(zip(("random candidates", "random survivors", CHOSEN), columns.values(), strict=True))
        loss = variety.lost(measured)
        text = f"{columns[CHOSEN].turns:,} turns of each kind, from {measured['sites']:,} sites."
    if loss is not None and loss > variety.TOLERATED:
        text += f" Choosing costs variety: distinct-2 is {loss:.0%} below a random survivor's."
    says: dict[str, Callable[[Variety], str]] = {
        "with a question mark": lambda one: f"{one.questions:.0%}",
        "words per turn": lambda one: f"{one.words:.1f}",
        "the most common opening": lambda one: f"{one.common_opening_share:.0%} “{one.common_opening}”",
        "distinct openings": lambda one: f"{one.openings:.2f}",
        "distinct-1": lambda one: f"{one.distinct_1:.2f}",
        "distinct-2": lambda one: f"{one.distinct_2:.2f}",
        "self-BLEU, high is uniform": lambda one: f"{one.self_bleu:.2f}",
    }
    rows = [(name, *(say(one) for one in columns.values())) for name, say in says.items()]
    return Section("variety", "Variety", text, head=("", *columns), rows=rows)


def settings(results: Results) -> Section:
    """The whole record, for those who want to make it again."""
    rows = list(flattened(results.record))
    return Section("settings", "Settings and record", "What run.json says.", head=("", ""), rows=rows, folded=True)


def flattened(value: Any, name: str = "", plain: type = object) -> Iterator[tuple[str, str]]:
    """Every plain value of a type with the path to it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flattened(inner, f"{name}.{key}" if name else str(key), plain)
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        for number, inner in enumerate(value):
            yield from flattened(inner, f"{name}[{number}]", plain)
    elif value is not None and isinstance(value, plain):
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def share_of_labels(tally: Tally, column: str | None, value: str) -> dict[str, float]:
    """By label, among the turns that have this value."""
    counts = {label: n for (name, of, label), n in tally.labels.items() if (name, of) == (column, value)}
    return {label: n / sum(counts.values()) for label, n in counts.items()}


def only_unjudged(tally: Tally) -> bool:
    """Whether nobody has labelled anything."""
    return tally.labels[None, "", UNJUDGED] == tally.turns


def kept_or_chosen(results: Results) -> str:
    """What is said of a turn that is in what came out."""
    return KEPT_BY_CLEANING if results.verb == "clean" else CHOSEN


def part(count: int, whole: int) -> str:
    """A count with its share."""
    return f"{count:,} ({count / whole:.1%})" if whole else f"{count:,}"
