"""The boosted trees that rules are compared with."""

from __future__ import annotations

import numpy as np
import pytest

from filters import ceiling, learn
from filters.scores import LABELS
from selfplay.training import read_judged
from tests.judged_turns import learn_roughly, write_judged


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> learn.Judged:
    return learn.read(read_judged(write_judged(tmp_path_factory.mktemp("judged"), conversations=30)))


@pytest.fixture(autouse=True)
def rough(monkeypatch: pytest.MonkeyPatch) -> None:
    learn_roughly(monkeypatch)


def test_it_finds_what_is_plain_to_see(judged: learn.Judged) -> None:
    found = ceiling.ceiling("text", judged)
    assert set(found) == {"sampled", "written"}
    assert found["sampled"]["report"]["turns"] == 150
    assert found["sampled"]["report"]["macro_f1"][0] > 0.9
    assert found["written"]["quality"]["auc"][0] > 0.95


def test_no_turn_is_judged_by_a_model_that_saw_its_conversation(judged: learn.Judged) -> None:
    """Labels drawn by conversation can be known only to who saw another turn of it."""
    rng = np.random.default_rng(0)
    names, index = np.unique(judged.groups, return_inverse=True)
    labels = rng.choice(["generic", "follow_up"], size=len(names))[index]
    drawn = learn.Judged(judged.features, labels, judged.sources, judged.groups, judged.folds)
    p = ceiling.held_out("text", drawn)
    assert (np.array(LABELS)[p.argmax(axis=1)] == labels).mean() < 0.7
    assert p.sum(axis=1) == pytest.approx(np.ones(len(labels)))


def test_it_reads_all_that_rules_may_test() -> None:
    assert set(learn.INPUTS["text"]) < set(ceiling.inputs("text"))  # a rule also tests for control tokens
    assert "control" in ceiling.inputs("text")
    assert "answer_pmi" in ceiling.inputs("full")
    assert "answer_pmi" not in ceiling.inputs("text")
