"""Every format is loaded by `datasets` and goes through a trainer's own preparation: what it learns is what we mean."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from selfplay.exporting.export import Export, export
from tests.folders import CONTEXT, candidate, clean_folder, dialogue, judged, play_folder, run_folder
from tests.toy_tokenizer import toy_tokenizer

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is not installed: pip install '.[dev]'"),
    pytest.mark.filterwarnings("ignore"),
]

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SITE = [
    candidate("From the fridge?", 0.9, 0.8),
    candidate("Just curious.", 0.3, 0.5, "lower_rank"),
    candidate("Eggs?", 0.1, 0.1, "flagged", label="prompt_restatement"),
]


@pytest.fixture(scope="module", autouse=True)
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """No network, no caches in the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Bytes, control tokens and a template that marks what the assistant says."""
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    toy_tokenizer(folder, TEMPLATE, "<s> </s> <|system|> <|user|> <|assistant|> <|tool|> <|end|>")
    fast = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token="<s>", eos_token="<|end|>", pad_token="</s>"
    )
    fast.chat_template = TEMPLATE
    return fast


@pytest.fixture(scope="module")
def tiny(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random model with one layer; trainers that compare with the model as it was read it again."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=1024, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def loaded(folder: Path, name: str | None = None, split: str = "train") -> Any:
    from datasets import load_dataset

    return load_dataset(str(folder), name, split=split)


def arguments(folder: Path) -> dict[str, Any]:
    return {"output_dir": str(folder / "trained"), "report_to": [], "use_cpu": True, "bf16": False, "max_length": None}


def learned(tokenizer: Any, row: Any) -> str:
    """The text that the loss covers."""
    return str(tokenizer.decode([label for label in row["labels"] if label != -100]))


def sft(dataset: Any, tokenizer: Any, tiny: str, folder: Path, **more: Any) -> Any:
    from trl import SFTConfig, SFTTrainer

    asked = SFTConfig(**arguments(folder), **more)
    return SFTTrainer(tiny, asked, train_dataset=dataset, processing_class=tokenizer).train_dataset


@pytest.mark.parametrize("file_type", ["jsonl", "parquet"])
def test_prompt_completion_teaches_the_users_turn_and_nothing_else(
    tmp_path: Path, tokenizer: Any, tiny: str, file_type: str
) -> None:
    run_folder(tmp_path / "run", [[SITE, SITE]])
    export(tmp_path / "run", tmp_path / "out", Export(file_type=file_type))
    prepared = sft(loaded(tmp_path / "out"), tokenizer, tiny, tmp_path)
    assert [learned(tokenizer, row) for row in prepared] == ["From the fridge?<|end|>"] * 2
    whole = tokenizer.decode(prepared[0]["input_ids"])
    assert whole == "<|assistant|>Eggs?<|end|><|user|>Eight minutes.<|end|><|assistant|>From the fridge?<|end|>"


def test_a_real_template_learns_the_users_turn_and_its_end(tmp_path: Path, tiny: str, smollm2: str) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    real = AutoTokenizer.from_pretrained(smollm2)
    folder = tmp_path / "model"
    shape = LlamaConfig.from_pretrained(tiny, vocab_size=len(real), pad_token_id=real.pad_token_id)
    LlamaForCausalLM(shape).save_pretrained(folder)
    run_folder(tmp_path / "run", [[SITE]])
    export(tmp_path / "run", tmp_path / "out")
    (row,) = sft(loaded(tmp_path / "out"), real, str(folder), tmp_path)
    assert learned(real, row) == "From the fridge?<|im_end|>\n"


def test_messages_with_assistant_only_loss_teach_the_users_turns(tmp_path: Path, tokenizer: Any, tiny: str) -> None:
    talk = CONTEXT + dialogue(2)
    clean_folder(tmp_path / "clean", [{"id": "c", "messages": talk, "user_turns": [judged(3), judged(5)]}])
    export(tmp_path / "clean", tmp_path / "out", Export(("messages",)))
    (row,) = sft(loaded(tmp_path / "out"), tokenizer, tiny, tmp_path, assistant_only_loss=True)
    assert learned(tokenizer, row) == "Eggs?<|end|>Turn 1?<|end|>Turn 2?<|end|>"


def test_assistant_with_assistant_only_loss_teaches_the_answers(tmp_path: Path, tokenizer: Any, tiny: str) -> None:
    play_folder(tmp_path / "play", 2, [{"id": "c0", "messages": CONTEXT + dialogue(2), "ending": "rounds"}])
    export(tmp_path / "play", tmp_path / "out", Export(("assistant",)))
    (row,) = sft(loaded(tmp_path / "out"), tokenizer, tiny, tmp_path, assistant_only_loss=True)
    assert learned(tokenizer, row) == "Eight minutes.<|end|>Answer 1.<|end|>Answer 2.<|end|>"


def test_pairs_go_through_dpo_and_the_reward_trainer(tmp_path: Path, tokenizer: Any, tiny: str) -> None:
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

    run_folder(tmp_path / "run", [[SITE]])
    export(tmp_path / "run", tmp_path / "out", Export(("dpo",)))
    dataset = loaded(tmp_path / "out")
    asked = DPOConfig(**arguments(tmp_path))
    prepared = DPOTrainer(tiny, args=asked, train_dataset=dataset, processing_class=tokenizer).train_dataset
    told = [
        {name: tokenizer.decode(row[f"{name}_ids"]) for name in ("prompt", "chosen", "rejected")} for row in prepared
    ]
    prompt = "<|assistant|>Eggs?<|end|><|user|>Eight minutes.<|end|><|assistant|>"
    assert told == [
        {"prompt": prompt, "chosen": "From the fridge?<|end|>", "rejected": "Just curious.<|end|>"},
        {"prompt": prompt, "chosen": "From the fridge?<|end|>", "rejected": "Eggs?<|end|>"},
    ]
    grading = RewardConfig(**arguments(tmp_path))
    graded = RewardTrainer(tiny, grading, train_dataset=dataset, processing_class=tokenizer)
    assert tokenizer.decode(graded.train_dataset[0]["chosen_ids"]) == prompt + "From the fridge?<|end|>"


def test_labels_go_through_kto(tmp_path: Path, tokenizer: Any, tiny: str) -> None:
    from trl import KTOConfig, KTOTrainer

    run_folder(tmp_path / "run", [[SITE]])
    export(tmp_path / "run", tmp_path / "out", Export(("kto",)))
    asked = KTOConfig(**arguments(tmp_path), per_device_train_batch_size=2)
    trainer = KTOTrainer(tiny, args=asked, train_dataset=loaded(tmp_path / "out"), processing_class=tokenizer)
    prepared = [(tokenizer.decode(row["completion_ids"]), row["label"]) for row in trainer.train_dataset]
    assert prepared == [("From the fridge?<|end|>", True), ("Eggs?<|end|>", False)]


TOOL_CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "find", "arguments": {"what": "eggs"}}}],
}
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}]


@pytest.mark.parametrize("file_type", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", ["messages", "assistant", "openai", "sharegpt", "reward", "prompt-completion"])
def test_what_is_loaded_is_what_was_meant(tmp_path: Path, tokenizer: Any, tiny: str, name: str, file_type: str) -> None:
    found = {"role": "tool", "content": "8", "tool_call_id": "1"}
    asked = {"role": "user", "content": "Look it up."}
    talk = [*CONTEXT, asked, TOOL_CALL, found, {"role": "assistant", "content": "Eight."}]
    plain = {"id": "plain", "messages": CONTEXT + dialogue(1), "user_turns": [judged(3)]}
    called = {"id": "called", "messages": talk, "user_turns": [judged(3)], "tools": TOOLS}
    clean_folder(tmp_path / "clean", [plain, called])
    export(tmp_path / "clean", tmp_path / "out", Export((name,), file_type))
    dataset = loaded(tmp_path / "out")
    assert len(dataset) == 2
    told = {"messages": "messages", "assistant": "messages", "openai": "messages", "sharegpt": "conversations"}
    last = dataset[1][told.get(name, "completion")][-1]
    said = {"assistant": "Eight."}.get(name, "Look it up.")
    assert (last["value"] if name == "sharegpt" else last["content"]) == said
    if name == "assistant":
        prepared = sft(dataset, tokenizer, tiny, tmp_path, assistant_only_loss=True)
        assert learned(tokenizer, prepared[1]) == "Eight minutes.<|end|><|end|>Eight.<|end|>"


def test_the_dataset_folder_has_a_configuration_for_each_format(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", [[SITE] * 40])
    written = export(tmp_path / "run", tmp_path / "out", Export(("hub",), validation=0.3))
    assert set(written) == {"prompt-completion", "messages", "dpo", "kto", "reward"}
    for name, counts in written.items():
        splits = {split: loaded(tmp_path / "out", name, split) for split in ("train", "validation")}
        assert {split: len(rows) for split, rows in splits.items()} == counts
        assert not {*splits["train"]["conversation_id"]} & {*splits["validation"]["conversation_id"]}
    assert len(loaded(tmp_path / "out")) == written["prompt-completion"]["train"]
