"""`rank --explain`: the numbers shown are the ones that made the score; and `--scorer-model self` knows who wrote."""

from __future__ import annotations

import json
from math import exp
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

import rerank
from rerank.explain import breakdowns
from rerank.fuse import COPY_CAP
from rerank.weights import TIER_SIGNALS
from selfplay.cli import cli
from selfplay.errors import UsageError
from selfplay.models import published_as
from selfplay.signals.writer import scorer_for

QUESTION = "Can I put solar panels on my old garage?"
ANSWER = "The panels add 240 kg to the roof, so the rafters need doubling."
MESSAGES = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
TURNS = {"a": "Is 240 kg with the rafters doubled still fine?", "b": "the rafters need doubling", "c": " "}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "turns.jsonl"
    path.write_text("".join(json.dumps({"id": k, "messages": MESSAGES, "turn": t}) + "\n" for k, t in TURNS.items()))
    return path


def rank(*args: object) -> Result:
    return CliRunner().invoke(cli, ["rank", *map(str, args)])


def table(turn: str, **signals: float | None) -> pl.DataFrame:
    columns = {name: pl.Series([value], dtype=pl.Float64) for name, value in signals.items()}
    return pl.DataFrame({"site_id": ["s"], "turn": [turn], "answer": [ANSWER], "history": [[QUESTION]]}).with_columns(
        **columns
    )


VALUES = st.one_of(st.none(), st.floats(-20, 20))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([*TURNS.values(), QUESTION, ANSWER]), st.lists(VALUES, min_size=12, max_size=12))
def test_intercept_and_contributions_add_up_to_the_score(turn: str, values: list[float | None]) -> None:
    names = [*TIER_SIGNALS["embedding"], *TIER_SIGNALS["likelihood"]]
    weights = rerank.load_weights()
    ranked = rerank.rank(table(turn, **dict(zip(names, values, strict=True))), weights)
    found = next(breakdowns(ranked, weights))
    score = 1 / (1 + exp(-found.log_odds))
    if found.blank:
        assert ranked["groundedness"][0] == 0
    else:
        assert ranked["groundedness"][0] == pytest.approx(min(score, COPY_CAP) if found.copy else score)
        for tier in found.ranked_with.split("+"):
            part = sum(each.log_odds for each in found.said if each.tier == tier)
            assert ranked[f"part_{tier}"][0] == pytest.approx(part)


def test_a_column_tells_what_moved_the_score_and_the_anchors(source: Path) -> None:
    done = rank(source, "--tiers", "text", "--explain")
    rows = {row["id"]: row for row in map(json.loads, done.stdout.splitlines())}
    score, moved, anchors = rows["a"]["rank_explanation"]
    assert score.startswith(f"groundedness {rows['a']['groundedness']:.2f} (log-odds")
    assert moved.count("(") == 4
    assert anchors == "anchors: 240, rafters, doubled" or anchors == "anchors: 240, rafters"
    assert "a copy of the answer or of the user's own words" in rows["b"]["rank_explanation"][1]
    assert rows["c"]["rank_explanation"][1].startswith("blank")
    assert "rank_explanation" not in json.loads(rank(source, "--tiers", "text").stdout.splitlines()[0])


def test_a_page_tells_all_about_one_turn(source: Path) -> None:
    done = rank(source, "--tiers", "text", "--explain-id", "a")
    page = done.stderr
    assert "a: Is 240 kg with the rafters doubled still fine?\n  rank 1 of 3 at its site\n" in page
    model = rerank.load_weights().models[json.loads(done.stdout.splitlines()[0])["ranked_with"]]
    assert all(f"\n    {name} " in page for name in model.shapes)
    assert "  anchors: 240, rafters" in page
    assert "the rafters need doubling" not in page


def test_an_id_that_no_row_has_is_one_line(source: Path) -> None:
    done = rank(source, "--tiers", "text", "--explain-id", "z")
    assert isinstance(done.exception, UsageError)
    assert "no row with id z; the first ones are a, b, c" in str(done.exception)
    assert done.stdout == ""


def test_self_is_the_one_model_that_wrote_the_turns() -> None:
    one, other, none = (pl.DataFrame({"model": [name]}, schema={"model": pl.String}) for name in ("m", "n", None))
    name, tables = scorer_for("self", [one, one])
    assert name == "m"
    assert len(list(tables)) == 2
    assert scorer_for("x", [none])[0] == "x"
    ours = one.with_columns(model=pl.lit(published_as("smollm2-135m")))
    assert scorer_for("self", [ours])[0] == "smollm2-135m"
    assert scorer_for(None, [none])[0] is None
    for mixed in ([one.vstack(other)], [one, other]):
        with pytest.raises(UsageError, match=r"the turns are of 2 models \(m, n\)"):
            list(scorer_for("self", mixed)[1])
    for missing in (none, one.vstack(none), pl.DataFrame({"turn": ["t"]})):
        with pytest.raises(UsageError, match="no `model`"):
            scorer_for("self", [missing])


def test_self_without_a_model_in_the_rows_is_one_line(source: Path) -> None:
    done = rank(source, "--scorer-model", "self")
    assert isinstance(done.exception, UsageError)
    assert "rows have no `model`" in str(done.exception)


def test_an_id_given_twice_is_explained_once(source: Path, tmp_path: Path) -> None:
    args = (source, "-o", tmp_path / "out.jsonl", "--tiers", "text", "--explain-id", "a")
    assert rank(*args, "--explain-id", "a").stderr == rank(*args).stderr
