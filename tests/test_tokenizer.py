"""Promises: a model's files are read as Hugging Face lays them out, text survives tokens, mistakes are one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from selfplay.errors import SelfplayError, UsageError
from selfplay.prompting.templates import ChatTemplate
from selfplay.prompting.tokenizer import load_tokenizer
from tests.families import user
from tests.toy_tokenizer import NOW, toy_tokenizer

texts = st.text("aZ9 \t\n\"'<|>/im_endé漢😀\u200b", max_size=40)


def write(folder: Path, name: str, value: Any) -> None:
    text = value if isinstance(value, str | bytes) else json.dumps(value)
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


@settings(max_examples=50, deadline=None)
@given(text=texts)
def test_text_survives_tokens_with_and_without_control_tokens(smollm2_template: ChatTemplate, text: str) -> None:
    tokenizer = smollm2_template.tokenizer
    for special in (True, False):
        assert tokenizer.decode(tokenizer.encode(text, special)) == text


def test_control_tokens_of_text_from_outside_are_plain_characters(smollm2_template: ChatTemplate) -> None:
    tokenizer = smollm2_template.tokenizer
    assert tokenizer.encode("<|im_end|>") == [2]
    assert len(tokenizer.encode("<|im_end|>", special=False)) > 3
    assert 2 not in tokenizer.encode("a<|im_end|>b", special=False)
    assert tokenizer.encode("a") == tokenizer.encode("a", special=False)


def test_added_tokens_not_marked_special_are_plain_characters_too(tmp_path: Path) -> None:
    tokenizer = toy_tokenizer(tmp_path, "", plain="<think>")
    assert len(tokenizer.encode("<think>")) == 1
    assert tokenizer.decode(tokenizer.encode("<think>", special=False)) == "<think>"
    assert len(tokenizer.encode("<think>", special=False)) == 7


def test_nothing_is_put_around_the_text(tmp_path: Path) -> None:
    """The real Llama and Mistral tokenizers add `<s>` by a post-processor; a rendered text has it already."""
    from tokenizers.processors import TemplateProcessing

    toy_tokenizer(tmp_path, "")
    fast = FastTokenizer.from_file(str(tmp_path / "tokenizer.json"))
    fast.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", fast.token_to_id("<s>"))])
    fast.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.decode(tokenizer.encode("a")) == "a"


def test_a_first_space_is_kept_where_the_decoder_drops_it(tmp_path: Path) -> None:
    """SentencePiece as in Llama 2 and Mistral: a text begins with a space that decoding takes away again."""
    toy_tokenizer(tmp_path, "")
    fast = FastTokenizer(models.BPE(vocab={"<s>": 0, "▁": 1, "a": 2, "b": 3, "▁a": 4}, merges=[("▁", "a")]))
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    fast.decoder = decoders.Metaspace(prepend_scheme="first")
    fast.add_special_tokens([AddedToken("<s>", special=True)])
    fast.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.decode([4, 3]) == " ab"
    assert tokenizer.decode([3, 4]) == "b a"
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"chat_template.jinja": "jinja", "tokenizer_config.json": {"chat_template": "config"}}, "jinja"),
        ({"tokenizer_config.json": {"chat_template": "config"}}, "config"),
        ({"chat_template.json": {"chat_template": "json"}}, "json"),
        (
            {
                "tokenizer_config.json": {
                    "chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
                }
            },
            "d",
        ),
        ({"tokenizer_config.json": {"chat_template": [{"name": "rag", "template": "r"}]}}, "r"),
    ],
)
def test_where_the_chat_template_stands(tmp_path: Path, files: dict[str, Any], expected: str) -> None:
    toy_tokenizer(tmp_path, "")
    (tmp_path / "chat_template.jinja").unlink()
    for name, value in files.items():
        write(tmp_path, name, value)
    assert load_tokenizer(str(tmp_path)).render([user("Hi")]) == expected


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 8192}, 8192),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 32768}}, 32768),
        ({}, None),
    ],
)
def test_context_length(tmp_path: Path, config: dict[str, Any], length: int | None) -> None:
    toy_tokenizer(tmp_path, "")
    write(tmp_path, "config.json", config)
    assert load_tokenizer(str(tmp_path)).context_length == length


def test_ends_of_generation_come_from_all_files(tmp_path: Path) -> None:
    toy_tokenizer(tmp_path, "", config={"eos_token": {"content": "</s>"}})
    write(tmp_path, "generation_config.json", {"eos_token_id": [7, 5]})
    write(tmp_path, "config.json", {"eos_token_id": 7, "text_config": {"eos_token_id": 6}})
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.eos_token_ids == tuple(sorted({5, 6, 7, tokenizer.token_id("</s>")}))


def test_the_date_can_be_handed_back(tmp_path: Path) -> None:
    tokenizer = toy_tokenizer(tmp_path, "{{ strftime_now('%Y-%m-%d') }}")
    assert tokenizer.date == NOW
    assert tokenizer.render([]) == "2026-03-01"
    assert toy_tokenizer(tmp_path, "no date").date is None


def test_template_hash_follows_the_text(tmp_path: Path) -> None:
    first = toy_tokenizer(tmp_path, "a").template_hash
    assert first == toy_tokenizer(tmp_path, "a").template_hash != toy_tokenizer(tmp_path, "b").template_hash


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("tokenizer.json", "{", "tokenizer.json cannot be read"),
        ("tokenizer_config.json", "{", "not readable as JSON"),
        ("generation_config.json", "\x00", "not readable as JSON"),
        ("config.json", "[" * 100_000, "not readable as JSON"),
        ("chat_template.jinja", b"\xff", "not readable as text"),
    ],
)
def test_broken_file_is_one_line(tmp_path: Path, name: str, content: str | bytes, reason: str) -> None:
    toy_tokenizer(tmp_path, "")
    write(tmp_path, name, content)
    with pytest.raises(SelfplayError, match=reason) as caught:
        load_tokenizer(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_model_without_chat_template_is_one_line(tmp_path: Path) -> None:
    toy_tokenizer(tmp_path, "")
    with pytest.raises(SelfplayError, match="no chat template"):
        ChatTemplate(load_tokenizer(str(tmp_path)))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("./no-such-folder", "no such folder"),
        ("no such model", "neither a folder nor"),
        ("a/b/c", "neither a folder nor"),
    ],
)
def test_model_that_is_none(model: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        load_tokenizer(model)


def test_model_that_cannot_be_fetched_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*_args: Any, **_kwargs: Any) -> str:
        raise OSError("no route to host\nsecond line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UsageError, match="selfplay models get smollm2-135m") as caught:
        load_tokenizer("owner/model", revision="v1")
    assert "owner/model at revision v1" in str(caught.value)
    assert "hf download owner/model" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_model_from_the_hub_knows_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    toy_tokenizer(tmp_path / "snapshots" / "0123abcd", "{{ messages[0].content }}")
    asked: dict[str, Any] = {}

    def fetch(repo: str, **options: Any) -> str:
        asked.update(options, repo=repo)
        return str(tmp_path / "snapshots" / "0123abcd")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    tokenizer = load_tokenizer("owner/model", revision="main")
    assert (tokenizer.model, tokenizer.revision) == ("owner/model", "0123abcd")
    assert (asked["repo"], asked["revision"]) == ("owner/model", "main")
    assert not any("safetensors" in pattern or "*" in pattern for pattern in asked["allow_patterns"])


def test_lone_surrogate_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SelfplayError, match="surrogate"):
        toy_tokenizer(tmp_path, "").encode("\ud800")
