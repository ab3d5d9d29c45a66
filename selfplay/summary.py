"""The closing table: what went in, what came out, and how good it is estimated to be."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import polars as pl

from filters import Rules, estimate_genuine
from selfplay.choosing import variety
from selfplay.dataset import in_order
from selfplay.rounds import summary as rounds
from selfplay.runs import Run
from selfplay.tables import with_context

ESTIMATE_SITES = 2_000
NO_RULE = {"follow_up": "no rule fired"}
"""A turn that passes is labelled follow_up, but the table must not read as if it had been judged one."""


def counted(run: Run) -> dict[str, Any]:
    """What has been sampled: `sites, candidates, completion_tokens`."""
    numbers = run.parts("sampled")
    if not numbers:
        return {"sites": 0, "candidates": 0, "completion_tokens": 0}
    # Parts that have not been judged may have a column more.
    paths = [run.path("sampled", number) for number in numbers]
    turns = pl.scan_parquet(paths, missing_columns="insert", extra_columns="ignore")
    counts = turns.select(
        pl.col("site_id").n_unique().alias("sites"), pl.len().alias("candidates"), pl.col("completion_tokens").sum()
    )
    return counts.collect().row(0, named=True)


def summarize(
    run: Run, rules: Rules, sessions: Sequence[Mapping[str, Any]], before: pl.Expr | None = None
) -> dict[str, Any]:
    """Counts and shares over all finished parts; JSON types only.

    Rates are what the recorded sessions did per second of their own time; one that was killed is in neither.
    `estimated_genuine` holds for all candidates (those that `before` takes, where it is given) and for the selected
    ones the mean calibrated `p_genuine` with its interval; it is an estimate, and not what the filter passed.
    """
    numbers = run.parts("turns")
    if not numbers:
        return counted(run)
    turns = pl.scan_parquet([run.path("turns", number) for number in numbers])
    sites = pl.scan_parquet([run.path("sites", number) for number in numbers]).select("site_id", "prompt_tokens")
    totals = (
        turns.select(
            pl.len().alias("candidates"),
            pl.col("genuine").sum().alias("passed_rules"),
            pl.col("selected").sum().alias("selected"),
            pl.col("completion_tokens").sum().alias("completion_tokens"),
            pl.col("cached_tokens").sum().alias("cached_tokens"),
            (pl.col("finish_reason") == "length").sum().alias("truncated"),
        )
        .collect()
        .row(0, named=True)
    )
    reasons = pl.col("rejected_for")
    only_cut = (reasons == "truncated").any() & ~pl.col("selected").any() & ~(reasons == "below_minimum").any()
    by_site = turns.group_by("site_id").agg(pl.len(), pl.col("genuine", "selected").any(), only_cut.alias("only_cut"))
    by_site = by_site.join(sites, on="site_id")
    n_sites, served, barren, only_truncated, prompt_tokens = (
        by_site.select(
            pl.len().alias("sites"),
            pl.col("selected").sum().alias("served"),
            (~pl.col("genuine")).sum().alias("barren"),
            pl.col("only_cut").sum().alias("only_truncated"),
            (pl.col("len") * pl.col("prompt_tokens")).sum().alias("prompt_tokens"),
        )
        .collect()
        .row(0)
    )
    labels = turns.group_by("label").len().sort("len", "label", descending=[True, False]).collect()
    names = ("sampling_seconds", "judging_seconds", "completion_tokens", "candidates")
    sampling_seconds, judging_seconds, tokens, candidates = (sum(s[name] for s in sessions) for name in names)
    seconds = sampling_seconds + judging_seconds
    texts = some_sites(run, n_sites)
    passed_share = totals["passed_rules"] / totals["candidates"]
    return {
        "sites": n_sites,
        **totals,
        "passed_rules_share": passed_share,
        "sites_with_selected": served,
        "sites_without_survivor": barren,
        "sites_only_truncated": only_truncated,
        "estimated_genuine": estimated_genuine(texts, rules, before),
        "variety": variety.measure(texts, (run.record["select"] or {}).get("diversity", 0.0)) if len(texts) else {},
        "labels": dict(labels.iter_rows()),
        "cached_share": totals["cached_tokens"] / max(1, prompt_tokens),
        "scoring_cached_share": cached_while_scoring(sessions),
        "tokens_per_second": tokens / sampling_seconds if tokens and sampling_seconds else None,
        "surviving_turns_per_second": passed_share * candidates / seconds if candidates and seconds else None,
    }


def cached_while_scoring(sessions: Sequence[Mapping[str, Any]]) -> float | None:
    """Share of the tokens that scoring read on the sampling engine that its prefix cache held; None if none was."""
    tokens, cached = (sum(s.get(name, 0) for s in sessions) for name in ("scored_tokens", "scored_cached"))
    return cached / tokens if tokens else None


def estimated_genuine(table: pl.DataFrame, rules: Rules, before: pl.Expr | None = None) -> dict[str, dict[str, Any]]:
    """The estimated share of genuine turns among all candidates of `table`, and among the selected ones.

    Args:
        before: Which candidates stand for all; all, if None.
    """
    if table.is_empty():
        return {}
    parts = {"before": table if before is None else table.filter(before), "after": table.filter("selected")}
    return {name: estimate(part, rules) for name, part in parts.items()}


def some_sites(run: Run, n_sites: int) -> pl.DataFrame:
    """The turns of at most about `ESTIMATE_SITES` sites with their contexts, for what needs the texts again.

    The sites are drawn by a hash of their ids; in reading order of the parts' first sites.
    """
    keep = min(1.0, ESTIMATE_SITES / max(1, n_sites))
    tables = []
    for number in in_order(run):
        turns = run.read("turns", number)
        turns = turns.filter(pl.col("site_id").map_elements(lambda key: share_of(key) < keep, return_dtype=pl.Boolean))
        if len(turns):
            tables.append(with_context(turns, run.read("sites", number)))
    return pl.concat(tables, how="diagonal_relaxed") if tables else pl.DataFrame()


def estimate(table: pl.DataFrame, rules: Rules) -> dict[str, Any]:
    """`turns, mean, low, high, extrapolated, why`; the numbers are None where there is nothing to estimate from."""
    found = asdict(estimate_genuine(table, rules, primed=bool(table["primed"].any())))
    numbers = {
        name: value if math.isfinite(value) else None for name, value in found.items() if isinstance(value, float)
    }
    return {"turns": len(table), **found, **numbers}


def share_of(key: str) -> float:
    """A number in 0..1 that depends only on `key`."""
    return zlib.crc32(key.encode()) / 2**32


def lines(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The closing table as pairs of name and value, of a run that only samples too."""
    if "labels" not in summary:
        return [(name.replace("_", " "), str(count)) for name, count in summary.items()]
    shares = {name: estimate_line(value) for name, value in summary["estimated_genuine"].items()}
    n = summary["candidates"]
    selected = f"{summary['selected']}"
    if (served := summary.get("sites_with_selected", summary["selected"])) != summary["selected"]:
        selected += f" at {served} sites"
    rows = [
        ("sites", f"{summary['sites']}"),
        ("candidates", f"{n}"),
        ("passed the rules", f"{summary['passed_rules']} ({summary['passed_rules_share']:.1%})"),
        ("selected", selected),
        ("sites with no survivor", f"{summary['sites_without_survivor']}"),
        (f"estimated genuine, {'first round' if 'rounds' in summary else 'all candidates'}", shares["before"]),
        ("estimated genuine, selected", shares["after"]),
        *(
            (f"  {NO_RULE.get(label, label)}", f"{count} ({count / n:.1%})")
            for label, count in summary["labels"].items()
        ),
        ("cut at the token limit", f"{summary['truncated']} ({summary['truncated'] / n:.1%})"),
        ("cached share of prompt tokens", f"{summary['cached_share']:.1%}"),
    ]
    if "pairs" in summary:
        rows.append(("pairs for preference training", f"{summary['pairs']}"))
    if (idle := summary["sites_only_truncated"]) > 0:
        hint = "raise --max-tokens, or give --allow-truncated"
        rows.insert(5, ("sites whose survivors were all cut", f"{idle}: {hint}"))
    rows[2:2] = rounds.lines(summary.get("rounds", {}))
    if summary.get("scoring_cached_share") is not None:
        rows.append(("cached share while scoring", f"{summary['scoring_cached_share']:.1%}"))
    if summary["tokens_per_second"] is not None:
        rows.append(("tokens/s while sampling", f"{summary['tokens_per_second']:.0f}"))
    if summary["surviving_turns_per_second"] is not None:
        rows.append(("surviving turns/s, all stages", f"{summary['surviving_turns_per_second']:.2f}"))
    return [*rows, *variety.lines(summary.get("variety", {}))]


def estimate_line(estimate: Mapping[str, Any]) -> str:
    """An estimated share with its interval, and a mark where it extrapolates."""
    if estimate["mean"] is None:
        return str(estimate["why"])
    text = f"{estimate['mean']:.1%} [{estimate['low']:.1%}, {estimate['high']:.1%}]"
    return f"{text} extrapolated: {estimate['why']}" if estimate["extrapolated"] else text
