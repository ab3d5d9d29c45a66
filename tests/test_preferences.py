"""Pairs for preference training: who is set against whom, and in what form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from selfplay.choosing import preferences
from selfplay.choosing.preferences import KINDS, write_pairs
from selfplay.results import Results
from selfplay.runs import Run
from selfplay.tables import SITES

MESSAGES = [{"role": "system", "content": "s"}, {"role": "user", "content": "Eggs?"},
            {"role": "assistant", "content": "Eight minutes."}]  # fmt: skip
PROMPT = [{"role": "assistant", "content": "Eggs?"}, {"role": "user", "content": "Eight minutes."}]


def candidate(
    turn: str, groundedness: float, p: float, reason: str | None, label: str = "follow_up", end: str = "stop"
) -> dict[str, Any]:
    return {"turn": turn, "groundedness": groundedness, "p_genuine": p, "rejected_for": reason, "label": label,
            "finish_reason": end, "selected": reason is None, "genuine": reason != "flagged"}  # fmt: skip


def run_of(folder: Path, *sites: list[dict[str, Any]]) -> Run:
    """One part; the candidates of each site stand in the order of their ranks."""
    run = Run(folder, {}, {})
    contexts = [
        {"site_id": f"c{o}#2", "ordinal": o, "conversation_id": f"c{o}", "messages": json.dumps(MESSAGES)}
        for o in range(len(sites))
    ]
    run.write("sites", 0, pl.DataFrame(contexts, schema=SITES))
    turns = [
        {
            "site_id": f"c{o}#2", "ordinal": o, "model": "m", "primed": False, "temperature": 1.0, "sample": place,
            "rank": place + 1, "rule": "r",
        } | row
        for o, rows in enumerate(sites)
        for place, row in enumerate(rows)
    ]  # fmt: skip
    run.write("turns", 0, pl.DataFrame(turns))
    return run


def pairs(run: Run, kinds: Sequence[str], margin: float = 0.0) -> list[dict[str, Any]]:
    parts = Results(run.folder, "run", run.record).parts()
    return [row for row, _ in preferences.pairs(parts, kinds, margin)]


BEST = candidate("From the fridge too?", 0.9, 0.8, None)


def test_the_chosen_turn_against_the_worst_survivor_in_the_simulators_view(tmp_path: Path) -> None:
    run = run_of(
        tmp_path,
        [BEST, candidate("Eight?", 0.6, 0.5, "lower_rank"), candidate("And?", 0.2, 0.5, "lower_rank"),
         candidate("Eggs?", 0.1, 0.1, "flagged", "prompt_restatement")],
    )  # fmt: skip
    (row,) = pairs(run, ["survivors"])
    assert row["prompt"] == PROMPT
    assert row["chosen"] == [{"role": "assistant", "content": "From the fridge too?"}]
    assert row["rejected"] == [{"role": "assistant", "content": "And?"}]
    assert (row["score_chosen"], row["score_rejected"]) == (pytest.approx(0.72), pytest.approx(0.1))
    assert row["margin"] == pytest.approx(0.62)
    assert (row["site_id"], row["conversation_id"], row["kind"]) == ("c0#2", "c0", "survivors")


def test_of_each_fault_the_surest_example(tmp_path: Path) -> None:
    run = run_of(
        tmp_path,
        [BEST, candidate("Eggs??", 0.3, 0.3, "flagged", "prompt_restatement"),
         candidate("Eggs?", 0.2, 0.1, "flagged", "prompt_restatement"),
         candidate("Ok.", 0.1, 0.2, "flagged", "generic")],
    )  # fmt: skip
    found = [(row["rejected"][0]["content"], row["rejected_label"]) for row in pairs(run, ["flagged"])]
    assert found == [("Eggs?", "prompt_restatement"), ("Ok.", "generic")]
    assert len({row["id"] for row in pairs(run, KINDS["both"])}) == 2


@pytest.mark.parametrize(
    "other",
    [
        candidate("from the fridge, too", 0.1, 0.1, "lower_rank"),
        candidate("And a very long", 0.1, 0.1, "flagged", "malformed", "length"),
        candidate("And a very long", 0.1, 0.1, "truncated", end="length"),
        candidate("  ", 0.0, 0.1, "flagged", "malformed"),
        candidate("Better by its score", 0.95, 0.9, "flagged", "generic"),
        candidate("As good", 0.9, 0.8, "lower_rank"),
        candidate("Also chosen", 0.2, 0.2, None),
    ],
)
def test_what_teaches_nothing_is_in_no_pair(tmp_path: Path, other: dict[str, Any]) -> None:
    assert pairs(run_of(tmp_path, [BEST, other]), KINDS["both"]) == []


def test_sites_without_a_chosen_turn_have_no_pairs(tmp_path: Path) -> None:
    lone = [candidate("Eggs?", 0.3, 0.3, "flagged", "generic"), candidate("x", 0.2, 0.3, "flagged", "generic")]
    run = run_of(tmp_path, lone, [BEST, candidate("Ok.", 0.1, 0.2, "flagged", "generic")])
    assert [row["site_id"] for row in pairs(run, KINDS["both"])] == ["c1#2"]
    assert write_pairs(run, "both") == 1
    assert len((tmp_path / "pairs.jsonl").read_text().splitlines()) == 1


def test_a_margin_leaves_out_pairs_that_are_close(tmp_path: Path) -> None:
    run = run_of(
        tmp_path, [BEST, candidate("Eight?", 0.9, 0.7, "lower_rank"), candidate("x", 0.1, 0.1, "flagged", "g")]
    )
    scores = [row["margin"] for row in pairs(run, KINDS["both"])]
    assert scores == [pytest.approx(0.09), pytest.approx(0.71)]
    assert [row["margin"] for row in pairs(run, KINDS["both"], 0.1)] == [pytest.approx(0.71)]
    assert pairs(run, KINDS["both"], 0.8) == []
