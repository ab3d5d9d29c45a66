"""How a run of several rounds went, for its closing table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from rerank.diversity import same_text
from selfplay.choosing.selection import UNBARRED
from selfplay.config import SampleConfig
from selfplay.runs import Run


def drawn_in(config: SampleConfig) -> pl.Expr:
    """The round of each row of a turns table, 0 being the first; see `config.round_of`."""
    sizes = {t: n for t, n in config.temperatures.items() if t > 0}
    return (
        pl.col("sample") // pl.col("temperature").replace_strict(sizes, default=None, return_dtype=pl.Int64)
    ).fill_null(0)


def summarize(run: Run, config: SampleConfig) -> dict[str, Any]:
    """Of all sites that are whole; JSON types only.

    Returns:
        `candidates_per_site`: mean, `fewest` and `most`; `rounds`: sites by the number of rounds they took (string
        keys); `given_up`: sites that had all rounds and too few turns to choose from; `cached_share_again`: of the
        prompt tokens of rounds after the first, the share that a prefix cache held, None without such rounds.
    """
    numbers = run.parts("turns")
    if not numbers:
        return {}
    turns = pl.scan_parquet([run.path("turns", number) for number in numbers])
    turns = turns.with_columns(round=drawn_in(config))
    fit = pl.col("rejected_for").is_null() | pl.col("rejected_for").is_in(UNBARRED)
    by_site = turns.group_by("site_id").agg(
        pl.len(),
        pl.col("round").max() + 1,
        pl.col("turn").filter(fit).map_elements(same_text, return_dtype=pl.String).n_unique().alias("fit"),
    )
    sites = by_site.collect()
    rounds = sites.group_by("round").len().sort("round")
    prompts = pl.scan_parquet([run.path("sites", number) for number in numbers]).select("site_id", "prompt_tokens")
    again = turns.filter(pl.col("round") > 0).select("site_id", "cached_tokens").join(prompts, on="site_id")
    cached, tokens = again.select(pl.col("cached_tokens").sum(), pl.col("prompt_tokens").sum()).collect().row(0)
    return {
        "until_survivors": config.until_survivors,
        "max_n": config.max_n,
        "candidates_per_site": sites["len"].mean(),
        "fewest": sites["len"].min(),
        "most": sites["len"].max(),
        "rounds": {str(number): count for number, count in rounds.iter_rows()},
        "given_up": sites.filter(pl.col("fit") < (config.until_survivors or 0)).height,
        "cached_share_again": cached / tokens if tokens else None,
    }


def lines(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of the closing table; none for a run of one round."""
    if not summary:
        return []
    took = ", ".join(f"{count} after {number}" for number, count in summary["rounds"].items())
    wanted, most = summary["until_survivors"], summary["max_n"]
    rows = [
        ("candidates per site", f"{summary['candidates_per_site']:.1f} ({summary['fewest']} to {summary['most']})"),
        ("sites done, by rounds", took),
        ("sites given up", f"{summary['given_up']} (fewer than {wanted} to choose from after {most} candidates)"),
    ]
    if summary["cached_share_again"] is not None:
        rows.append(("cached share of prompts drawn at again", f"{summary['cached_share_again']:.1%}"))
    return rows
