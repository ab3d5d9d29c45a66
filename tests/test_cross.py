"""The cross-encoder's tier: each pair scored once, its own weights, and refused without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest

import rerank
from rerank.learn import train
from rerank.weights import TIER_SETS
from selfplay.errors import SelfplayError, UsageError
from selfplay.signals import measure as measuring
from selfplay.signals import tiers
from selfplay.signals.cross import CrossEncoderScorer, cross_signals
from selfplay.signals.measure import measure, missing_tiers, signal_versions
from selfplay.signals.tiers import Measurer, SignalModels, settle, wanted

KNOWN = {"weights": {"cross_encoder": {"model": "pairs", "revision": None}}}
MODELS = SignalModels(cross_encoder="pairs")


class Pairs:
    """Scores a pair by the words its texts share; keeps what it was asked."""

    model = "pairs"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.asked += pairs
        return [float(len({*turn.split()} & {*answer.split()})) for turn, answer in pairs]


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(tier: str, model: str | None = None) -> dict[str, Any]:
        return {measuring.PARTS[tier]: {"model": model, "revision": None}}

    monkeypatch.setattr(tiers, "available_tiers", lambda: (frozenset({"text", *tiers.SIGNALS}), {}))
    monkeypatch.setattr(tiers, "expected_versions", named)
    monkeypatch.setattr(tiers, "load_cross_encoder", lambda model: Pairs())


def table(*turns: str) -> pl.DataFrame:
    return pl.DataFrame({"turn": turns}).with_columns(query=pl.lit("q"), answer=pl.lit("one two three"))


def test_each_pair_is_scored_once_and_blanks_never() -> None:
    scorer = Pairs()
    found = cross_signals(["one two", " ", "one two", "three", "x"], ["one two three"] * 4 + [""], scorer)
    assert found == {"cross_score": [2.0, None, 2.0, 1.0, None]}
    assert scorer.asked == [("three", "one two three"), ("one two", "one two three")]


def test_measuring_needs_a_cross_encoder_and_adds_its_column() -> None:
    with pytest.raises(SelfplayError, match="needs a cross-encoder"):
        measure(table("one"), {"cross"})
    found = measure(table("one", ""), {"cross"}, cross_encoder=Pairs())
    assert found["cross_score"].to_list() == [1.0, None]
    assert "cross" not in missing_tiers(found)
    assert signal_versions(cross_encoder=Pairs()) == KNOWN["weights"]


def test_it_is_wanted_where_it_is_named_or_known() -> None:
    assert wanted("auto", {}, SignalModels(), reads=("text", "state")) == ("state",)
    assert wanted("text", {}, MODELS) == ("cross",)
    assert wanted("all", KNOWN, SignalModels(), reads=("text", "state")) == (
        "embedding",
        "state",
        "likelihood",
        "cross",
    )
    assert wanted("text+embedding", KNOWN, SignalModels()) == ("embedding",)


def test_weights_that_know_none_refuse_it_and_say_how_to_train() -> None:
    with pytest.raises(SelfplayError, match="learned without a cross-encoder; learn weights with pairs") as caught:
        settle("auto", {"weights": {}}, MODELS)
    assert "`selfplay train-ranker JUDGED -o WEIGHTS --cross-encoder pairs`" in str(caught.value)
    with pytest.raises(SelfplayError, match="learned without a cross-encoder"):
        Measurer(("cross",), {"weights": {}}, optional=True, models=MODELS)


def test_weights_that_know_another_refuse_it_and_name_theirs() -> None:
    other = SignalModels(cross_encoder="others")
    with pytest.raises(
        SelfplayError, match="cross_encoder model is 'others', but the weights were learned with 'pairs'"
    ):
        settle("auto", KNOWN, other)
    with pytest.raises(SelfplayError, match="give --cross-encoder pairs, or learn"):
        settle("auto", KNOWN, other)


def test_weights_that_know_one_do_without_it_and_say_so() -> None:
    found, notes = settle("auto", KNOWN)
    assert "cross" not in found
    assert notes == [
        "no cross signals: no cross-encoder is shipped; name one with --cross-encoder, which the weights were learned "
        "with: pairs"
    ]
    with pytest.raises(SelfplayError, match="--tiers all: no cross signals"):
        settle("all", KNOWN)
    assert settle("auto", KNOWN, MODELS)[0][-1] == "cross"


def test_the_measurer_adds_the_column_for_weights_that_know_it() -> None:
    with Measurer(("cross",), KNOWN, models=MODELS) as measurer:
        assert measurer(table("two three"))["cross_score"].to_list() == [2.0]


def test_a_scorer_for_tiers_without_likelihoods_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="--scorer-model scores turns, which --tiers text"):
        wanted("text", {}, SignalModels(scorer="x"))


def test_weights_learned_with_it_use_it_and_fall_back_without() -> None:
    rows = [
        (f"s{site}", f"word{turn}", 3 * (turn == site % 3), float(turn == site % 3))
        for site in range(30)
        for turn in range(3)
    ]
    judged = pl.DataFrame(rows, schema=["site_id", "turn", "grade", "cross_score"], orient="row").with_columns(
        answer=pl.lit("a"), query=pl.lit("q")
    )
    weights = train(judged, measured_with=KNOWN["weights"])
    assert {*weights.models} == {"text", "text+cross"}
    assert weights.tiers == {"text", "cross"}
    ranked = rerank.rank(judged, weights)
    assert ranked["ranked_with"].unique().to_list() == ["text+cross"]
    assert ranked.filter(pl.col("rank") == 1)["grade"].to_list() == [3] * 30
    assert ranked["part_cross"].is_not_null().all()
    without = rerank.rank(judged.drop("cross_score"), weights)
    assert without["ranked_with"].unique().to_list() == ["text"]
    assert without["part_cross"].is_null().all()


def test_every_set_has_text_and_the_fullest_comes_last() -> None:
    assert all(name.split("+")[0] == "text" for name in TIER_SETS)
    assert {*TIER_SETS[-1].split("+")} == {"text", "wording", "state", *tiers.SIGNALS}


def test_a_model_that_cannot_be_had_is_one_line_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise OSError("no such host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    sentence_transformers = pytest.importorskip("sentence_transformers")
    monkeypatch.setattr(sentence_transformers, "CrossEncoder", lambda *_, **__: pytest.fail("tried to load it"))
    with pytest.raises(UsageError, match=r"cannot get some/encoder .*, or give its folder$"):
        CrossEncoderScorer("some/encoder")
