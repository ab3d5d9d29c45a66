"""The closing table against counts made by hand."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from filters import load_rules
from selfplay.runs import Run
from selfplay.showing.candidates import before_after
from selfplay.summary import lines, summarize
from selfplay.tables import SITES, TURNS

RULES = load_rules()
SESSION = {"sampling_seconds": 2.0, "judging_seconds": 3.0, "completion_tokens": 30, "candidates": 3}
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
            "rejected_for": [None, "flagged"] if n == 2 else ["flagged"],
        }  # fmt: skip
        run.write("turns", number, pl.DataFrame(known).with_columns(
            pl.lit(None, kind).alias(name) for name, kind in TURNS.items() if name not in known
        ))  # fmt: skip
    return run


def test_counts(tmp_path: Path) -> None:
    found = summarize(finished(tmp_path), RULES, [SESSION])
    assert found["sites"] == 2
    assert found["candidates"] == 3
    assert found["passed_rules"] == 1
    assert found["sites_without_survivor"] == 1
    assert found["labels"] == {"degenerate": 2, "follow_up": 1}
    assert found["cached_share"] == pytest.approx(40 / 150)
    assert found["tokens_per_second"] == 15
    assert found["scoring_cached_share"] is None, "an engine that does not score, or does not tell"
    scored = summarize(finished(tmp_path), RULES, [SESSION, {**SESSION, "scored_tokens": 200, "scored_cached": 150}])
    assert dict(lines(scored))["cached share while scoring"] == "75.0%"
    assert found["surviving_turns_per_second"] == pytest.approx(0.2)
    before, after = found["estimated_genuine"]["before"], found["estimated_genuine"]["after"]
    assert (before["turns"], after["turns"]) == (3, 1)
    assert 0 < before["low"] <= before["mean"] <= before["high"] < 1
    assert before["extrapolated"], "no turns of model m were judged"
    assert after["mean"] < 1, "what passed the filter is not thereby genuine"
    shown = dict(lines(found))
    assert shown["  no rule fired"] == "1 (33.3%)"
    assert "extrapolated" in shown["estimated genuine, all candidates"]


def test_nothing_came_out(tmp_path: Path) -> None:
    run = Run(tmp_path, {}, None)
    assert lines(summarize(run, RULES, [])) == [("sites", "0"), ("candidates", "0"), ("completion tokens", "0")]
    assert before_after(run, 3) == []


def test_rates_leave_out_what_a_killed_session_did(tmp_path: Path) -> None:
    half = SESSION | {"sampling_seconds": 1.0, "completion_tokens": 10, "candidates": 1, "judging_seconds": 0.0}
    found = summarize(finished(tmp_path / "half"), RULES, [half])
    assert found["tokens_per_second"] == 10, "30 tokens are there, but only 10 were made in the second we know of"
    assert found["surviving_turns_per_second"] == pytest.approx(1 / 3)
    nothing = summarize(finished(tmp_path / "none"), RULES, [half | {"completion_tokens": 0, "candidates": 0}])
    assert nothing["tokens_per_second"] is None


def test_no_candidate_chosen(tmp_path: Path) -> None:
    run = finished(tmp_path)
    for number in (0, 1):
        run.write("turns", number, run.read("turns", number).with_columns(selected=pl.lit(False)))
    found = summarize(run, RULES, [SESSION])
    assert found["selected"] == 0
    assert dict(lines(found))["estimated genuine, selected"] == "nothing to estimate from"


def test_sites_that_lost_every_survivor_to_the_token_limit_are_named(tmp_path: Path) -> None:
    run = finished(tmp_path / "cut")
    turns = run.read("turns", 0).with_columns(
        selected=False, rejected_for=pl.Series(["truncated", "flagged"]), finish_reason=pl.lit("length")
    )
    run.write("turns", 0, turns)
    found = summarize(run, RULES, [SESSION])
    assert found["sites_only_truncated"] == 1
    assert "--max-tokens" in dict(lines(found))["sites whose survivors were all cut"]
    assert "sites whose survivors were all cut" not in dict(
        lines(summarize(finished(tmp_path / "other"), RULES, [SESSION]))
    )
