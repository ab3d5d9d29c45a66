"""What is chosen at a site, and what the others are told."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.selection import REASONS, select


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


rows = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.booleans(), st.sampled_from(["stop", "length", None]), st.floats(0, 1) | st.none()
    ),
    max_size=20,
)


@given(rows, st.floats(0, 1), st.booleans())
def test_at_most_one_per_site_and_a_reason_for_every_other(
    drawn: list[tuple[str, bool, str | None, float | None]], minimum: float, truncated: bool
) -> None:
    schema = {
        "site_id": pl.String, "genuine": pl.Boolean, "finish_reason": pl.String, "groundedness": pl.Float64,
        "rank": pl.Int64,
    }  # fmt: skip
    frame = pl.DataFrame([(*row, rank) for rank, row in enumerate(drawn)], schema=schema, orient="row")
    found = select(frame, minimum, truncated)
    chosen = found.filter("selected")
    assert chosen["site_id"].is_unique().all()
    assert chosen["genuine"].all()
    assert chosen["rejected_for"].is_null().all()
    assert found.filter(~pl.col("selected"))["rejected_for"].is_in(REASONS).all()
    survivors = found.filter(pl.col("rejected_for").is_null() | (pl.col("rejected_for") == "lower_rank"))
    assert set(chosen["site_id"]) == set(survivors["site_id"]), "a site with an eligible survivor gets a turn"
