"""Promises: `selfplay prompt` shows every character of the prompt, safely, and its mistakes are one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from selfplay.commands.prompt import command, visible
from selfplay.errors import UsageError
from selfplay.prompting.templates import ChatTemplate
from selfplay.prompting.tokenizer import load_tokenizer
from tests.families import FAMILIES, assistant, user

ROWS = [
    {"id": "one", "messages": [user("Hi"), assistant("Hello.\x1b[31m\\n"), user("Why?"), assistant("Because.")]},
    {"id": "two", "messages": [{"role": "system", "content": "Be brief."}, user("Hé"), assistant("Hello.")]},
]


@pytest.fixture
def model(tmp_path: Path) -> str:
    folder = tmp_path / "model"
    next(family for family in FAMILIES if family.name == "qwen3").tokenizer(folder)
    return str(folder)


@pytest.fixture
def conversations(tmp_path: Path) -> str:
    path = tmp_path / "conversations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


def run(*arguments: str) -> bytes:
    return CliRunner().invoke(command, list(arguments), catch_exceptions=False, standalone_mode=False).stdout_bytes


def test_raw_is_the_exact_prompt(conversations: str, model: str) -> None:
    expected = ChatTemplate(load_tokenizer(model)).user_prompt(ROWS[0]["messages"]).text
    assert run(conversations, "--model", model, "--raw") == expected.encode()
    assert run(conversations, "--model", model, "--raw", "--site", "one#3") == expected.encode()


def test_shown_prompt_is_safe_and_leads_back(conversations: str, model: str) -> None:
    shown = run(conversations, "--model", model, "--turns", "all").decode()
    assert "\x1b" not in shown
    head, _, prompt = shown.partition("prompt:\n")
    assert "Hello.\\x1b[31m\\\\n<|im_end|>\\n\n" in prompt
    assert "site: one#1" in head
    assert "<|im_end|>" in head
    raw = run(conversations, "--model", model, "--turns", "all", "--raw").decode()
    assert prompt.replace("\n", "").encode("ascii").decode("unicode_escape") == raw


def test_json_holds_tokens_and_stops(conversations: str, model: str) -> None:
    found = json.loads(run(conversations, "--model", model, "--index", "1", "--json"))
    tokenizer = load_tokenizer(model)
    assert found["site_id"] == "two#2"
    assert found["tokens"] == len(found["token_ids"]) == len(tokenizer.encode(found["prompt"]))
    assert found["stop_token_ids"] == sorted(tokenizer.encode("<|im_end|><|endoftext|>"))
    assert set(found["stop_tokens"].values()) == {"<|im_end|>", "<|endoftext|>"}


def test_system_and_header(conversations: str, model: str) -> None:
    asked = (conversations, "--model", model, "--site", "two#2", "--raw")
    assert b"Be brief." in run(*asked)
    assert b"Be brief." not in run(*asked, "--system", "drop")
    assert run(*asked, "--system", "Be kind.").startswith(b"<|im_start|>system\nBe kind.<|im_end|>\n")
    assert run(*asked, "--header", "assistant").endswith(b"Hello.<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--site", "three#1"), "no site three#1; the first ones are one#1, one#3, two#2"),
        (("--index", "2"), "no site 2"),
        (("--index", "0", "--site", "one#1"), "give one of them"),
        (("--raw", "--json"), "give one of them"),
    ],
)
def test_mistakes_are_one_line(conversations: str, model: str, arguments: tuple[str, ...], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        run(conversations, "--model", model, *arguments)


def test_family_without_assistant_header(conversations: str, tmp_path: Path) -> None:
    next(family for family in FAMILIES if family.name == "mistral_v3").tokenizer(tmp_path / "mistral")
    with pytest.raises(UsageError, match="no assistant header of its own"):
        run(conversations, "--model", str(tmp_path / "mistral"), "--header", "assistant")


@given(text=st.text("a\\nrx01\n\r\t\x00\x1b\x7f\x9b\u202eé漢😀\ud800", max_size=30))
def test_what_is_shown_leads_back(text: str) -> None:
    shown = visible(text, line_breaks=True)
    assert all(ch.isprintable() or ch == "\n" for ch in shown)
    back = visible(text).encode("ascii", "backslashreplace").decode("unicode_escape")
    assert shown.replace("\n", "") == visible(text)
    assert back == text
