"""What a rule proves on conversations kept apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from filters.certify import certify, kept_apart, least_proof, lower_bound
from filters.features import FEATURES, Features
from filters.labels import Label
from filters.learning import learn
from filters.rule import Certified, Rule, Threshold
from filters.rules import Rules, RuleSet
from selfplay.learning.training import read_judged
from tests.judged_turns import learn_roughly, write_judged


@pytest.mark.parametrize(
    ("right", "n", "bound"),
    [
        (94, 94, 0.05 ** (1 / 94)),  # without a miss the bound p solves p ** n = .05
        (29, 29, 0.05 ** (1 / 29)),
        (28, 28, 0.05 ** (1 / 28)),
        (9, 10, 0.6058),  # the root of p^10 + 10 p^9 (1 - p) = .05
        (0, 50, 0.0),
        (0, 0, 0.0),
    ],
)
def test_the_bound_is_the_exact_one(right: int, n: int, bound: float) -> None:
    assert lower_bound(right, n) == pytest.approx(bound, abs=1.01e-4)
    assert lower_bound(right, n) <= bound  # never rounded up into a certificate


def test_it_takes_29_right_ones_without_a_miss_to_prove_ninety_percent() -> None:
    assert lower_bound(28, 28) < 0.9 <= lower_bound(29, 29) == 0.9018
    assert lower_bound(94, 94) == 0.9686
    assert least_proof(0.9) == 29
    assert lower_bound(44, 45) < 0.9 <= lower_bound(45, 46)  # with one miss it takes 46: .9^46 + 46 .9^45 .1 = .048
    for precision in (0.6, 0.8, 0.95, 0.99):
        least = least_proof(precision)
        assert lower_bound(least - 1, least - 1) < precision <= lower_bound(least, least)


def features(chars: list[float]) -> Features:
    unknown = np.full(len(chars), np.nan)
    return Features(dict.fromkeys(FEATURES, unknown) | {"chars": np.array(chars)}, np.ones(len(chars), dtype=bool))


def certificate(n: int, right: int, wanted: dict[str, float] | float) -> Certified:
    rules = RuleSet("text", (Rule("short", Label.DEGENERATE, (Threshold("chars", "<=", 5),)),))
    labels = np.array(["degenerate"] * right + ["generic"] * (n - right) + ["follow_up"] * 3)
    found = certify(rules, features([3.0] * n + [80.0] * 3), labels, wanted).rules[0].certified
    assert found is not None
    return found


def test_a_rule_on_too_few_turns_is_not_certified() -> None:
    assert str(certificate(28, 28, 0.9)) == "not certified (n=28)"
    assert str(certificate(29, 29, 0.9)) == "certified >= 0.90 (n=29, at least 0.90)"
    assert str(certificate(200, 150, 0.9)) == "not certified (n=200)"
    assert str(certificate(0, 0, 0.9)) == "not certified (n=0)"


def test_the_precision_to_prove_goes_by_label() -> None:
    assert certificate(29, 29, {"degenerate": 0.95}).precision == 0.95
    assert not certificate(29, 29, {"degenerate": 0.95}).holds
    assert certificate(29, 29, {"generic": 0.95}).precision == 0.9  # for labels without their own


def test_nothing_apart_certifies_nothing() -> None:
    rules = RuleSet("text", (Rule("short", Label.DEGENERATE, (Threshold("chars", "<=", 5),)),))
    assert certify(rules, features([]), np.array([], dtype="U32"), 0.9) is rules


def test_whole_conversations_are_kept_apart() -> None:
    groups = np.repeat([f"c{n}" for n in range(50)], 4)
    aside = kept_apart(groups, 0.2, seed=3)
    assert aside.sum() == 40
    assert set(groups[aside]).isdisjoint(groups[~aside])
    assert not kept_apart(groups, 0.0, seed=3).any()
    assert (aside != kept_apart(groups, 0.2, seed=4)).any()
    for share in (1.0, -0.1):
        with pytest.raises(ValueError, match="cannot be kept apart"):
            kept_apart(groups, share, seed=3)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    return read_judged(write_judged(tmp_path_factory.mktemp("judged")))


def without_certificates(rules: Rules) -> dict[str, RuleSet]:
    return {
        name: replace(each, rules=tuple(replace(rule, certified=None) for rule in each.rules))
        for name, each in rules.sets.items()
    }


def test_conversations_apart_are_not_learned_from(table: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    learn_roughly(monkeypatch)
    aside = kept_apart(table["context"].to_numpy().astype(str), 0.25, seed=0)
    poisoned = table.with_columns(label=pl.when(pl.Series(aside)).then(pl.lit("generic")).otherwise("label"))
    clean, bad = (learn.train(each, apart=0.25) for each in (table, poisoned))
    assert without_certificates(clean) == without_certificates(bad)
    proofs = [(a.certified, b.certified) for a, b in zip(clean.sets["text"].rules, bad.sets["text"].rules, strict=True)]
    assert any(a.right and not b.right and a.n == b.n for a, b in proofs if a and b)
    assert clean.training["apart"] == 15
