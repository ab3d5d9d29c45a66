"""Judging a part: what it costs, and that it says what filtering and ranking say one after the other."""

from __future__ import annotations

import polars as pl
import pytest

import filters
import rerank
from filters.text import form
from filters.text.context import Batch
from selfplay import judging
from selfplay.core import Draw
from selfplay.engines.base import SampleRequest
from selfplay.signals.wording import WORDING, rank, with_wording
from selfplay.tables import turns_table, with_context
from tests.scripted import ScriptedEngine
from tests.test_measure import site
from tests.test_pipeline import SITES

TURNS = ("Why must I boil them, and for how long?", "Eggs?", "<|im_end|>", "")


def part() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Some turns of one site, and the site."""
    request = SampleRequest("c0#1", None, tuple(Draw(1.0, n, n) for n in range(len(TURNS))))  # type: ignore[arg-type]
    drawn = [ScriptedEngine().candidate(request, draw, "k") for draw in request.draws]
    turns = turns_table([(SITES[0], drawn)], "m", False).with_columns(turn=pl.Series(TURNS))
    return turns, pl.DataFrame(
        {"site_id": ["c0#1"], "messages": [site("Boil them for six minutes.", "")[0]["messages"]]}
    )


def test_the_text_of_each_turn_is_looked_at_once_and_the_outcome_is_that_of_the_single_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns, sites = part()
    table = with_context(turns, sites)
    alone = rank(filters.label(table, filters.load_rules()), rerank.load_weights())
    looked_at = []
    really = form.measure

    def counting(batch: Batch) -> object:
        looked_at.append(len(batch))
        return really(batch)

    monkeypatch.setattr(form, "measure", counting)
    select, _ = judging.configure(judging.Options(tiers="text"))
    with judging.opened(select, judging.Options(tiers="text")) as judge:
        judged = judge(turns, sites)
    assert looked_at == [len(TURNS)]
    assert judged["p_genuine"].null_count() == 0
    columns = [name for name in alone.columns if name in judged.columns]
    assert {"label", "rule", "p_genuine", "groundedness", "rank", "part_wording"} < {*columns}
    assert judged.select(columns).equals(alone.select(columns))
    assert not {*WORDING} & {*judged.columns}


def test_wording_of_features_at_hand_is_that_of_the_text() -> None:
    table = with_context(*part())
    assert with_wording(table, filters.features.compute(table)).equals(with_wording(table))
    assert with_wording(with_wording(table)).equals(with_wording(table))
