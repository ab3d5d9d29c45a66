"""The column `turn_state`: who is asked for states, of which pass, and where they are null. With scripted scorers."""

import numpy as np
import polars as pl
import pytest

from selfplay.engines.base import Reading
from selfplay.errors import SelfplayError
from selfplay.signals.likelihood import MAX_TOKENS, SIGNALS
from selfplay.signals.measure import measure
from tests.test_measure import FakeScorer, FakeTemplate, site


class FakeReader(FakeScorer):
    """The state of a turn: length of its prefix, last token of it (the header), number of tokens, and the layer."""

    layers = 4

    def read(self, requests, layer):
        scores = self.score(requests)
        return [
            [
                Reading(logprobs, np.array([len(r.prefix), r.prefix[-1], len(turn), layer], dtype=np.float32))
                for turn, logprobs in zip(r.continuations, found, strict=True)
            ]
            for r, found in zip(requests, scores, strict=True)
        ]


PREFIX = len("u:Q|a:abcd|") + 1
OWN = {"own_tokens": True, "own_logprobs": True}


BOTH = ("state", "likelihood")


def measured(table, scorer=None, tiers=BOTH, layer=3, **options):
    return measure(table, tiers, scorer=scorer or FakeReader(), template=FakeTemplate(), layer=layer, **options)


def test_the_state_is_that_of_the_first_pass_and_likelihoods_stay_the_same():
    table = pl.DataFrame(site("abcd", "xy", "", "xyz" * MAX_TOKENS))
    scorer, plain = FakeReader(), FakeScorer()
    found = measured(table, scorer)
    assert found["turn_state"].dtype == pl.List(pl.Float32)
    assert found["turn_state"].to_list() == [[PREFIX, 1, 2, 3], None, [PREFIX, 1, MAX_TOKENS, 3]]
    assert found.drop("turn_state").equals(measured(table, plain, ("likelihood",)))
    assert scorer.requests == plain.requests, "no further pass"


def test_likelihoods_alone_ask_for_no_state_and_a_scorer_that_cannot_look_inside_gives_null():
    table = pl.DataFrame(site("abcd", "xy"))
    assert "turn_state" not in measured(table, tiers=("likelihood",)).columns
    for tiers in (BOTH, ("state",)):
        assert measured(table, FakeScorer(), tiers)["turn_state"].to_list() == [None]


def test_states_alone_take_the_first_pass_only():
    table = pl.DataFrame(site("abcd", "xy", "z", " ") + site("other", "xy"))
    scorer = FakeReader()
    found = measured(table, scorer, ("state",))
    assert found["turn_state"].equals(measured(table)["turn_state"])
    assert not {*SIGNALS} & {*found.columns}
    assert [len(request.continuations) for request in scorer.requests] == [2, 1]
    with pytest.raises(SelfplayError, match="layer"):
        measured(table, scorer, ("state",), layer=None)


def test_turns_without_likelihoods_have_no_state():
    table = pl.DataFrame(site("abcd", "x", "y")).with_columns(finish_reason=pl.Series(["stop", "length"]))
    for tiers in (BOTH, ("state",)):
        found = measured(table, tiers=tiers, skip_cut=True)
        assert found["turn_state"].is_null().to_list() == [False, True]
        found = measured(table.with_columns(messages=None), tiers=tiers)
        assert found["turn_state"].is_null().all()


def sampled(*states):
    table = pl.DataFrame(site("abcd", "xy", "zw"))
    return table.with_columns(
        token_ids=pl.Series([[7, 8], [9]]),
        token_logprobs=pl.Series([[-0.5, -1.5], [-2.0]]),
        sampled_state=pl.Series(states, dtype=pl.List(pl.Float32)),
    )


def test_the_first_pass_is_the_samplers_where_it_gathered_the_state():
    for tiers in (BOTH, ("state",)):
        scorer = FakeReader()
        found = measured(sampled([0.25, 1.0], None), scorer, tiers, **OWN)
        assert found["turn_state"].to_list() == [[0.25, 1.0], [PREFIX, 1, 1, 3]]
        firsts = [r.continuations for r in scorer.requests if len(r.prefix) == PREFIX and r.prefix[-1] == 1]
        assert firsts == [((9,),)], "the turn whose state is not known is read, and no other"
    # A logprob that is known stays, to the last bit, though the turn has to be read for its state.
    assert measured(sampled([0.25], None), **OWN)["mean_logprob"].to_list() == [-1.0, -2.0]


def test_a_samplers_logprobs_are_enough_where_no_state_can_be_had():
    for scorer, tiers in ((FakeReader(), ("likelihood",)), (FakeScorer(), BOTH)):
        found = measured(sampled(None, None), scorer, tiers, **OWN)
        assert found["mean_logprob"].to_list() == [-1.0, -2.0]
    elsewhere = measured(sampled([0.25], [0.5]), own_tokens=True)
    assert [len(state) for state in elsewhere["turn_state"]] == [4, 4], "another model's states are not taken"
