"""p_genuine and its mean: calibrated on judged turns, wide where little was seen, marked where it is a guess."""

import json
import math
from importlib.resources import files

import numpy as np
import polars as pl
import pytest

import filters
from filters.calibration import Calibration
from filters.estimate import estimate_genuine
from filters.features import Features, compute
from filters.rules import load


@pytest.fixture(scope="module")
def judged() -> pl.DataFrame:
    folder = files("filters") / "judged"
    contexts = [json.loads(line) for line in (folder / "contexts.jsonl").read_text(encoding="utf-8").splitlines()]
    users = {c["id"]: [m["content"] for m in c["messages"] if m["role"] == "user"] for c in contexts}
    answers = {c["id"]: c["messages"][-1]["content"] for c in contexts}
    rows = [json.loads(line) for line in (folder / "judged_turns.jsonl").read_text(encoding="utf-8").splitlines()]
    table = pl.DataFrame(
        {
            "turn": [row["text"] for row in rows],
            "truth": [row["label"] for row in rows],
            "source": [row["source"] for row in rows],
            "site_id": [row["context"] for row in rows],
            "finish_reason": pl.Series([row.get("finish_reason") for row in rows], dtype=pl.String),
            "query": [users[row["context"]][-1] if users[row["context"]] else None for row in rows],
            "history": pl.Series([users[row["context"]] for row in rows], dtype=pl.List(pl.String)),
            "answer": [answers[row["context"]] for row in rows],
        }
    )
    return table.filter(pl.col("source") != "written")


@pytest.fixture(scope="module")
def features(judged: pl.DataFrame) -> Features:
    return compute(judged)


def calibration(name: str) -> Calibration:
    found = load().sets[name].calibration
    assert found is not None
    return found


@pytest.mark.parametrize(("name", "auc", "low"), [("text", 0.75, 0.71), ("full", 0.81, 0.79)])
def test_held_out_figures_beat_the_first_look(name: str, auc: float, low: float) -> None:
    """What was measured on conversations held out in training; .71 is where plain string features had ended, and .81
    the first look at all signals together."""
    sampled = calibration(name).figures["sampled"]
    assert sampled["n"] >= 800
    assert sampled["auc"][0] > auc
    assert sampled["auc"][1] > low
    assert sampled["ece"][0] < 0.03
    error = 2.5 * math.sqrt(sampled["mean_p"] * (1 - sampled["mean_p"]) / sampled["n"])
    assert abs(sampled["mean_p"] - sampled["genuine"]) < error


def test_the_mean_is_calibrated_on_judged_turns(judged: pl.DataFrame, features: Features) -> None:
    """These turns were learned from, which the calibration, made on held-out ones, allows for: p may be too timid here,
    so among what passed and what did not it may err to the middle, never away from it."""
    labelled = filters.label(judged, features=features)
    truth = (judged["truth"] == "follow_up").to_numpy()
    passed = labelled["genuine"].to_numpy()
    gaps = []
    for rows in (passed | ~passed, passed, ~passed):
        p = labelled["p_genuine"].to_numpy()[rows]
        gaps.append((p.mean() - truth[rows].mean()) / math.sqrt(np.mean(p * (1 - p)) / len(p)))
    assert abs(gaps[0]) < 2.5
    assert -5 < gaps[1] < 2.5
    assert -2.5 < gaps[2] < 5


def test_an_interval_holds_the_truth_and_narrows_with_conversations(judged: pl.DataFrame, features: Features) -> None:
    found = estimate_genuine(judged, features=features)
    assert found.low < (judged["truth"] == "follow_up").mean() < found.high
    ten = judged["site_id"].is_in(judged["site_id"].unique(maintain_order=True)[:10].implode()).to_numpy()
    few = estimate_genuine(judged.filter(ten), features=features.take(ten))
    assert few.high - few.low > 1.5 * (found.high - found.low)


def test_rows_of_one_conversation_are_no_independent_witnesses(judged: pl.DataFrame, features: Features) -> None:
    by_site = estimate_genuine(judged, features=features)
    alone = judged.with_row_index("n").with_columns(site_id=pl.col("n").cast(pl.String))
    by_row = estimate_genuine(alone, features=features)
    assert by_site.high - by_site.low > by_row.high - by_row.low


def test_what_was_never_judged_is_marked(judged: pl.DataFrame) -> None:
    english = judged.filter(pl.col("answer").str.contains(r"\bthe\b"))[:50]
    english = english.filter(pl.col("turn").str.len_chars() > 0)

    def why(**options: object) -> str:
        found = estimate_genuine(english, **options)  # type: ignore[arg-type]
        assert found.extrapolated == bool(found.why)
        return found.why

    assert why(generator="HuggingFaceTB/SmolLM2-135M-Instruct") == ""
    assert "Llama-3" in why(generator="Llama-3")
    assert "by instruction" in why(generator="SmolLM2-135M-Instruct", primed=True)
    assert "not known" in why()
    foreign = english.with_columns(answer=pl.lit("Das ist nicht so schwer, denn die Lampe ist für den Winter."))
    assert "not in English" in estimate_genuine(foreign, generator="SmolLM2-135M-Instruct").why


def test_nothing_to_estimate(judged: pl.DataFrame) -> None:
    found = estimate_genuine(judged.clear())
    assert math.isnan(found.mean)
    assert found.extrapolated


def test_calibration_survives_json() -> None:
    for name in load().sets:
        kept = calibration(name)
        assert Calibration.from_json(kept.to_json(), "here") == kept
        assert len(kept.replicates) >= 50
