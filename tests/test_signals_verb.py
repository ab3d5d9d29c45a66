"""`selfplay signals`: nothing that ranking reads is left undocumented."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from click.testing import CliRunner

from rerank.catalogue import CATALOGUE, TIERS, Signal
from rerank.weights import TIER_SIGNALS
from selfplay.cli import cli
from selfplay.errors import UsageError
from selfplay.signals.measure import SIGNALS


def test_every_signal_that_is_read_or_measured_is_documented_once_under_its_tier() -> None:
    documented = [each.name for each in CATALOGUE]
    assert len(documented) == len(set(documented))
    measured = [(tier, names) for tier, names in SIGNALS.items() if tier != "state"]  # of which comes `state_grade`
    for tier, names in (*TIER_SIGNALS.items(), *measured):
        assert [each.name for each in CATALOGUE if each.tier == tier] == [*names]
    assert {each.tier for each in CATALOGUE} == TIERS.keys()


@pytest.mark.parametrize("each", CATALOGUE, ids=lambda each: each.name)
def test_nothing_is_left_empty(each: Signal) -> None:
    assert all(getattr(each, field.name).strip() for field in fields(each))


def test_the_verb_shows_what_is_asked_for() -> None:
    done = CliRunner().invoke(cli, ["signals", "answer_pmi", "cross"], catch_exceptions=False)
    assert "copy of the answer" in done.output
    assert "cross_score" in done.output
    assert "cos_query" not in done.output
    every = CliRunner().invoke(cli, ["signals"], catch_exceptions=False).output
    assert all(each.name in every for each in CATALOGUE)
    listed = json.loads(CliRunner().invoke(cli, ["signals", "--json"], catch_exceptions=False).output)
    assert [row["name"] for row in listed] == [each.name for each in CATALOGUE]


def test_an_unknown_name_is_one_line() -> None:
    caught = CliRunner().invoke(cli, ["signals", "beauty"]).exception
    assert isinstance(caught, UsageError)
    assert "no signal or tier 'beauty'; tiers are text, wording, embedding" in str(caught)
