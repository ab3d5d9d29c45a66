"""The boosted trees that rules are compared with."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from filters.features import Features
from filters.labels import LABELS
from filters.learning import ceiling, learn
from selfplay.learning.training import read_judged
from tests.judged_turns import learn_roughly, write_judged


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> learn.Judged:
    return learn.read(read_judged(write_judged(tmp_path_factory.mktemp("judged"), conversations=30)))


@pytest.fixture(autouse=True)
def rough(monkeypatch: pytest.MonkeyPatch) -> None:
    learn_roughly(monkeypatch)


def test_it_finds_what_is_plain_to_see(judged: learn.Judged) -> None:
    found = ceiling.ceiling(judged)
    assert set(found) == {"sampled", "written"}
    assert found["sampled"]["report"]["turns"] == 150
    assert found["sampled"]["report"]["macro_f1"][0] > 0.9
    assert found["written"]["quality"]["auc"][0] > 0.95


class Rote:
    """Knows what it saw, by the first column, and calls all else malformed."""

    def __init__(self, columns: NDArray[np.float64], labels: NDArray[np.str_]) -> None:
        self.classes_ = np.unique([*labels, "malformed"])
        self.known = dict(zip(columns[:, 0], labels, strict=True))

    def predict_proba(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([self.classes_ == self.known.get(value, "malformed") for value in columns[:, 0]], dtype=float)


def test_no_turn_is_judged_by_a_model_that_saw_its_conversation(
    judged: learn.Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, index = np.unique(judged.groups, return_inverse=True)
    column = ceiling.inputs(("text",))[0]
    told = Features(judged.features.values | {column: index.astype(float)}, judged.features.english)
    labels = np.where(index % 2, "generic", "follow_up")
    monkeypatch.setattr(ceiling, "boosted", lambda columns, labels, *_: Rote(columns, labels))
    p = ceiling.held_out(learn.Judged(told, labels, judged.sources, judged.groups, judged.folds))
    assert set(np.array(LABELS)[p.argmax(axis=1)]) == {"malformed"}  # one that was seen would have its own label


def test_it_reads_all_that_rules_may_test() -> None:
    assert set(learn.INPUTS["text"]) < set(ceiling.inputs(("text",)))  # a rule also tests for control tokens
    assert "control" in ceiling.inputs(("text",))
    assert "answer_pmi" in ceiling.inputs(("text", "embedding", "likelihood"))
    assert "answer_pmi" not in ceiling.inputs(("text",))


def test_that_a_turn_was_written_by_somebody_tells_it_nothing(
    judged: learn.Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only sampled turns have a finish_reason; whether it is known must not be seen."""
    seen: list[NDArray[np.float64]] = []

    def fitted(columns: NDArray[np.float64], labels: NDArray[np.str_], *_: object) -> Rote:
        seen.append(columns[:, ceiling.inputs(("text",)).index("cut")])
        return Rote(columns, labels)

    monkeypatch.setattr(ceiling, "boosted", fitted)
    cut = np.where(judged.sampled, 0.0, np.nan)
    told = Features(judged.features.values | {"cut": cut}, judged.features.english)
    ceiling.held_out(learn.Judged(told, judged.labels, judged.sources, judged.groups, judged.folds))
    assert all((column == 0).all() for column in seen)
