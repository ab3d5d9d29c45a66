"""What is chosen at a site, and what the others are told."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.choosing.in_order import choose_in_order
from selfplay.choosing.selection import REASONS, select
from selfplay.config import SelectConfig, differences
from selfplay.runs import Run
from selfplay.tables import TURNS


def table(*rows: tuple[str, bool, str, float, int]) -> pl.DataFrame:
    schema = ["site_id", "genuine", "finish_reason", "groundedness", "rank"]
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_best_survivor_is_selected_and_the_others_told_why() -> None:
    found = select(
        table(
            ("a", True, "stop", 0.4, 2),
            ("a", True, "stop", 0.9, 1),
            ("a", False, "stop", 0.95, 3),
            ("b", True, "length", 0.8, 1),
            ("b", True, "stop", 0.7, 2),
            ("c", False, "stop", 0.7, 1),
        )
    )
    assert found["selected"].to_list() == [False, True, False, False, True, False]
    assert found["rejected_for"].to_list() == ["lower_rank", None, "flagged", "truncated", None, "flagged"]


@pytest.mark.parametrize(
    ("minimum", "truncated", "selected"), [(0.0, True, [True, False]), (0.75, False, [False, False])]
)
def test_minimum_and_truncation(minimum: float, truncated: bool, selected: list[bool]) -> None:
    rows = table(("b", True, "length", 0.8, 1), ("b", True, "stop", 0.7, 2))
    assert select(rows, minimum, truncated)["selected"].to_list() == selected


def turns(*rows: tuple[str, str, float]) -> pl.DataFrame:
    """Survivors in the order of their ranks."""
    frame = pl.DataFrame(rows, ["site_id", "turn", "groundedness"], orient="row")
    return frame.with_columns(
        genuine=True, finish_reason=pl.lit("stop"), rank=pl.int_range(1, pl.len() + 1).over("site_id")
    )


def test_k_different_turns_and_a_repeat_is_called_redundant() -> None:
    found = select(
        turns(("a", "Why 7?", 0.9), ("a", "why 7", 0.8), ("a", "how?", 0.7), ("a", "so?", 0.6), ("b", "who?", 0.5)), k=2
    )
    assert found["selected"].to_list() == [True, False, True, False, True]
    assert found["rejected_for"].to_list() == [None, "redundant", None, "lower_rank", None]
    assert select(turns(("a", "Why 7?", 0.9), ("a", "why 7", 0.8)), k=2)["rejected_for"].to_list() == [
        None,
        "redundant",
    ]


def test_diversity_looks_at_earlier_sites_in_reading_order() -> None:
    rows = [(f"s{i}", turn, merit) for i in range(9) for turn, merit in (("tell me more", 0.6), (f"x{i} y{i}", 0.5))]
    plain = select(turns(*rows)).filter("selected")["turn"].to_list()
    assert plain == ["tell me more"] * 9
    varied = select(turns(*rows), diversity=0.5)
    assert varied.filter("selected")["turn"].to_list() == ["tell me more", *(f"x{i} y{i}" for i in range(1, 9))]
    assert varied["rejected_for"].to_list()[2] == "redundant"


def test_only_sites_with_a_choice_are_encoded() -> None:
    asked: list[str] = []

    def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        asked.extend(texts)
        return np.eye(len(texts), 4, dtype=np.float32)

    table = turns(("a", "p", 0.9), ("a", "q", 0.8), ("a", "r", 0.7), ("b", "p", 0.6), ("b", "t", 0.5))
    assert select(table, k=2, diversity=0.1, encode=encode)["selected"].sum() == 4
    assert asked == ["p", "q", "r"]
    select(table, k=2, encode=encode)
    select(table, diversity=0.5, encode=encode)
    assert len(asked) == 3, "nothing is compared without diversity, nor where one turn is chosen"


def test_turns_that_nobody_filtered_are_all_survivors() -> None:
    table = turns(("a", "p", 0.9), ("a", "q", 0.8)).drop("genuine")
    assert select(table, k=2)["selected"].to_list() == [True, True]


def test_a_copy_is_never_chosen_not_even_where_nothing_else_is_left() -> None:
    table = turns(("a", "p", 0.9), ("a", "q", 0.8), ("b", "r", 0.7)).with_columns(copy=pl.Series([True, False, True]))
    for k in (1, 2):
        found = select(table, k=k)
        assert found["selected"].to_list() == [False, True, False]
        assert found["rejected_for"].to_list() == ["copy", None, "copy"]


RANKED = pl.Schema(
    dict(TURNS)
    | {
        "genuine": pl.Boolean(), "p_genuine": pl.Float64(), "copy": pl.Boolean(), "groundedness": pl.Float64(),
        "rank": pl.Int64(), "selected": pl.Boolean(), "rejected_for": pl.String(),
    }
)  # fmt: skip


def run_of(folder: Path, parts: Sequence[Sequence[int]], sites: Mapping[int, Sequence[str]]) -> Run:
    """A run whose parts hold these sites, by ordinal, with these turns, best first and all survivors."""
    run = Run(folder, {}, None)
    for number, ordinals in enumerate(parts):
        rows = [
            {
                "site_id": f"c{o}#1", "ordinal": o, "conversation_id": f"c{o}", "temperature": 1.0, "sample": place,
                "turn": turn, "finish_reason": "stop", "genuine": True, "p_genuine": 0.9, "copy": False,
                "groundedness": 0.8 - place / 20, "rank": place + 1, "selected": not place,
                "rejected_for": "lower_rank" if place else None,
            }
            for o in sorted(ordinals)
            for place, turn in enumerate(sites[o])
        ]  # fmt: skip
        table = pl.DataFrame(rows, schema=RANKED)
        for kind in ("sites", "sampled", "turns"):
            run.write(kind, number, table)
    return run


def selected_of(run: Run) -> list[tuple[str, str]]:
    tables = pl.concat(run.read("turns", n) for n in run.parts("turns"))
    return sorted(tables.filter("selected").select("site_id", "turn").iter_rows())


@settings(max_examples=20, deadline=None)
@given(st.data(), st.integers(1, 2))
def test_how_sites_are_spread_over_parts_does_not_decide(data: st.DataObject, k: int) -> None:
    said = st.lists(
        st.sampled_from(["tell me more", "tell me why", "how so", "and x", "x y z"]), min_size=1, max_size=3
    )
    sites = dict(enumerate(data.draw(st.lists(said, min_size=1, max_size=8))))
    spread = data.draw(st.lists(st.integers(0, 3), min_size=len(sites), max_size=len(sites)))
    parts = [[o for o in sites if spread[o] == part] for part in range(4)]
    config = SelectConfig("", "", "", "", ("text",), select=k, diversity=0.6)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, layout in (("one", [list(sites)]), ("many", parts)):
            run = run_of(Path(folder) / name, layout, sites)
            choose_in_order(run, config, None)
            found.append(selected_of(run))
            before = [run.path("turns", n).stat().st_mtime_ns for n in run.parts("turns")]
            choose_in_order(run, config, None)
            assert before == [run.path("turns", n).stat().st_mtime_ns for n in run.parts("turns")], "nothing changed"
            run.close()
        whole = pl.DataFrame([(f"c{o}#1", turn) for o in sites for turn in sites[o]], ["site_id", "turn"], orient="row")
    assert found[0] == found[1]
    assert {site for site, _ in found[0]} == set(whole["site_id"])


def test_a_kill_while_parts_are_rewritten_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites = {o: ["tell me more", f"x{o} y{o}"] for o in range(6)}
    config = SelectConfig("", "", "", "", ("text",), diversity=0.6)
    run = run_of(tmp_path / "a", [[0, 3], [1, 4], [2, 5]], sites)
    choose_in_order(run, config, None)
    expected = selected_of(run)
    assert [turn for _, turn in expected] == ["tell me more", *(f"x{o} y{o}" for o in range(1, 6))]
    killed = run_of(tmp_path / "b", [[0, 3], [1, 4], [2, 5]], sites)
    write, written = killed.write, 0

    def dying(*arguments: Any) -> None:
        nonlocal written
        written += 1
        if written == 2:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(killed, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        choose_in_order(killed, config, None)
    assert selected_of(killed) != expected
    monkeypatch.setattr(killed, "write", write)
    choose_in_order(killed, config, None)
    assert selected_of(killed) == expected


def test_parts_one_after_another_are_not_in_memory_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites = {o: ["tell me more", f"x{o} y{o}"] for o in range(8)}
    run = run_of(tmp_path, [[0, 1], [2, 3], [4, 5], [6, 7]], sites)
    began: list[int] = []
    ended: list[int] = []
    read, write = run.read, run.write

    def reading(kind: str, number: int, columns: list[str] | None = None) -> pl.DataFrame:
        if columns is not None and len(columns) > 1:
            began.append(number)
            assert len(began) - len(ended) <= 2
        return read(kind, number, columns)

    def writing(kind: str, number: int, table: pl.DataFrame) -> None:
        ended.append(number)
        write(kind, number, table)

    monkeypatch.setattr(run, "read", reading)
    monkeypatch.setattr(run, "write", writing)
    choose_in_order(run, SelectConfig("", "", "", "", ("text",), diversity=0.6), None)
    assert (began, ended) == ([0, 1, 2, 3], [0, 1, 2, 3])


def test_a_run_from_before_there_was_diversity_is_the_same_run() -> None:
    before = {"rules": "r", "rules_hash": "h", "weights": "w", "weights_hash": "i", "tiers": ["text"],
              "min_groundedness": 0.0, "allow_truncated": False}  # fmt: skip
    assert SelectConfig("r", "h", "w", "i", ("text",)).as_json() == before
    now = SelectConfig("r", "h", "w", "i", ("text",), select=2, diversity=0.3).as_json()
    assert differences(before, now) == ["diversity: default -> 0.3", "select: default -> 2"]


rows = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.booleans(),
        st.sampled_from(["stop", "length", None]),
        st.floats(0, 1) | st.none(),
        st.sampled_from(["why", "how so", "and then", "x"]),
    ),
    max_size=20,
)


@settings(deadline=None)
@given(rows, st.floats(0, 1), st.booleans(), st.integers(1, 3), st.sampled_from([0.0, 0.5, 1.0]))
def test_at_most_k_per_site_and_a_reason_for_every_other(
    drawn: list[tuple[str, bool, str | None, float | None, str]],
    minimum: float,
    truncated: bool,
    k: int,
    diversity: float,
) -> None:
    schema = {
        "site_id": pl.String, "genuine": pl.Boolean, "finish_reason": pl.String, "groundedness": pl.Float64,
        "turn": pl.String, "rank": pl.Int64,
    }  # fmt: skip
    frame = pl.DataFrame([(*row, rank) for rank, row in enumerate(drawn)], schema=schema, orient="row")
    found = select(frame, minimum, truncated, k, diversity)
    chosen = found.filter("selected")
    assert (chosen.group_by("site_id").len()["len"] <= k).all()
    assert chosen["genuine"].all()
    assert truncated or not (chosen["finish_reason"] == "length").any()
    assert chosen["rejected_for"].is_null().all()
    assert (found["site_id"].to_list(), found["turn"].to_list()) == (
        frame["site_id"].to_list(),
        frame["turn"].to_list(),
    )
    assert found.filter(~pl.col("selected"))["rejected_for"].is_in(REASONS).all()
    eligible = found.filter(
        pl.col("rejected_for").is_null() | pl.col("rejected_for").is_in(["lower_rank", "redundant"])
    )
    texts = dict(eligible.group_by("site_id").agg(pl.col("turn").n_unique()).iter_rows())
    counts = dict(chosen.group_by("site_id").len().iter_rows())
    assert counts == {site: min(k, n) for site, n in texts.items()}, "a site with an eligible survivor gets a turn"


@pytest.mark.parametrize("k", [1, 3])
def test_a_blank_turn_is_never_selected(k: int) -> None:
    found = select(turns(("a", "Why 7?", 0.9), ("a", " \n", 0.0), ("b", "", 0.0)), k=k)
    assert found["selected"].to_list() == [True, False, False]
    assert found["rejected_for"].to_list() == [None, "blank", "blank"]


def test_a_default_is_called_so_in_a_difference() -> None:
    assert differences({"select": 2}, {}) == ["select: 2 -> default"]
    assert differences({"limit": None}, {"limit": 3}) == ["limit: default -> 3"]
