"""A real cross-encoder, tiny and made here: loaded by folder, and models that are none are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from selfplay.cli import cli
from selfplay.errors import SelfplayError
from selfplay.signals.cross import CrossEncoderScorer, cross_signals
from tests.judged_turns import write_judged

pytestmark = pytest.mark.integration
pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    letters = [chr(code) for code in range(97, 123)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters)]
    tokenizer = BertTokenizerFast(vocab={word: n for n, word in enumerate(words)}, model_max_length=64)
    kinds = {
        "one": (BertForSequenceClassification, 1),
        "three": (BertForSequenceClassification, 3),
        "bi": (BertModel, 1),
    }
    for name, (kind, outputs) in kinds.items():
        config = BertConfig(
            vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
            max_position_embeddings=64, num_labels=outputs,
        )  # fmt: skip
        kind(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def test_scores_are_raw_repeatable_and_know_which_text_is_which(models: Path) -> None:
    scorer = CrossEncoderScorer(str(models / "one"))
    long = "a very long answer " * 100
    first = cross_signals(["why so", "and then", " "], ["because", long, "x"], scorer)["cross_score"]
    assert first[2] is None
    # In another batch, beside other lengths, the same numbers.
    assert cross_signals(["and then"], [long], scorer)["cross_score"] == pytest.approx(first[1:2], abs=1e-5)
    assert scorer.score([("why so", "because")]) != scorer.score([("because", "why so")])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three", "3 outputs; one with a single score is needed"),
        ("bi", "no cross-encoder but a BertModel, whose score would be random"),
        ("nowhere", "is neither a folder nor a Hugging Face id"),
    ],
)
def test_what_is_no_cross_encoder_is_refused_in_one_line(models: Path, name: str, message: str) -> None:
    with pytest.raises(SelfplayError, match=message) as caught:
        CrossEncoderScorer(str(models / name))
    assert "\n" not in str(caught.value)


def test_train_with_it_and_rank_with_it(models: Path, tmp_path: Path) -> None:
    judged = write_judged(tmp_path, conversations=8, sampled=2)
    messages = json.loads((judged / "contexts.jsonl").read_text().splitlines()[0])["messages"]
    turns = tmp_path / "turns.jsonl"
    turns.write_text("".join(json.dumps({"messages": messages, "turn": text}) + "\n" for text in ("why?", "no way")))

    def call(*args: object) -> object:
        done = CliRunner().invoke(cli, [*map(str, args)])
        return done.exception or done.stdout

    weights = tmp_path / "w.json"
    call("train-ranker", judged, "-o", weights, "--cross-encoder", models / "one", "--folds", 0)
    ranked = call("rank", turns, "--weights", weights, "--tiers", "text", "--cross-encoder", models / "one")
    rows = [json.loads(line) for line in str(ranked).splitlines()]
    assert {row["ranked_with"] for row in rows} == {"text+wording+cross"}
    assert all(row["part_cross"] is not None for row in rows)
    refused = call("rank", turns, "--cross-encoder", models / "one")
    assert isinstance(refused, SelfplayError)
    assert "learned without a cross-encoder" in str(refused)
