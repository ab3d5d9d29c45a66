"""The closing table against counts made by hand."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from filters import load_rules
from selfplay.runs import Run
from selfplay.summary import lines, summarize
from selfplay.tables import SITES, TURNS

RULES = load_rules()
MESSAGES = '[{"role": "user", "content": "How long do eggs boil?"}, {"role": "assistant", "content": "Eight minutes."}]'


def finished(folder: Path) -> Run:
    """Two parts: site a with two candidates, one chosen; site b with one that was flagged."""
    run = Run(folder, {}, None)
    for number, (site, turns) in enumerate({"a#1": ["eight? mine were raw", "ok"], "b#1": ["Thanks!"]}.items()):
        sites = {"site_id": [site], "ordinal": [number], "messages": [MESSAGES], "prompt_tokens": [50]}
        run.write("sites", number, pl.DataFrame(sites).with_columns(
            pl.lit(None, kind).alias(name) for name, kind in SITES.items() if name not in sites
        ))  # fmt: skip
        n = len(turns)
        known = {
            "site_id": [site] * n, "conversation_id": [site[0]] * n, "turn": turns, "finish_reason": ["stop"] * n,
            "completion_tokens": [10] * n, "cached_tokens": [0, 40][:n], "model": ["m"] * n, "primed": [False] * n,
            "ordinal": [number] * n, "genuine": [True, False] if n == 2 else [False],
            "label": ["follow_up", "degenerate"] if n == 2 else ["degenerate"],
            "selected": [True, False] if n == 2 else [False],
        }  # fmt: skip
        run.write("turns", number, pl.DataFrame(known).with_columns(
            pl.lit(None, kind).alias(name) for name, kind in TURNS.items() if name not in known
        ))  # fmt: skip
    return run


def test_counts(tmp_path: Path) -> None:
    found = summarize(finished(tmp_path), RULES, sampling_seconds=2.0, judging_seconds=3.0)
    assert found["sites"] == 2
    assert found["candidates"] == 3
    assert found["passed_rules"] == 1
    assert found["sites_without_survivor"] == 1
    assert found["labels"] == {"degenerate": 2, "follow_up": 1}
    assert found["cached_share"] == pytest.approx(40 / 150)
    assert found["tokens_per_second"] == 15
    assert found["surviving_turns_per_second"] == pytest.approx(0.2)
    before, after = found["estimated_genuine"]["before"], found["estimated_genuine"]["after"]
    assert (before["turns"], after["turns"]) == (3, 1)
    assert 0 < before["low"] <= before["mean"] <= before["high"] < 1
    assert before["extrapolated"], "no turns of model m were judged"
    assert after["mean"] < 1, "what passed the filter is not thereby genuine"
    shown = dict(lines(found, []))
    assert shown["  no rule fired"] == "1 (33.3%)"
    assert "extrapolated" in shown["estimated genuine, all candidates"]


def test_nothing_came_out(tmp_path: Path) -> None:
    run = Run(tmp_path, {}, None)
    assert lines(summarize(run, RULES, 0.0, 0.0), [{"sites": 0, "candidates": 0, "completion_tokens": 0}])
