"""Promises: any common shape begins a dialogue; answers are sampled at the header that history has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfplay.inputs.quarantine import Quarantine
from selfplay.playing.answers import read_answer
from selfplay.playing.prompts import Start, read_prompts
from selfplay.prompting.jinja import TemplateError
from selfplay.prompting.templates import ChatTemplate
from tests.families import DIALOGUES, FAMILIES, Family


def said(*texts: str, first: str = "user") -> list[dict[str, str]]:
    other = {"user": "assistant", "assistant": "user"}
    roles = [first if number % 2 == 0 else other[first] for number in range(len(texts))]
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]


def read(tmp_path: Path, *rows: Any, start: Start = "last") -> tuple[list[Any], dict[str, int]]:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    quarantine = Quarantine()
    return list(read_prompts(str(path), quarantine, start)), quarantine.summary()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "Hi"}, ["Hi"]),
        ({"prompt": said("Hi"), "messages": None}, ["Hi"]),
        ({"messages": said("Hi")}, ["Hi"]),
        ({"messages": said("Hi", "Hello.", "Why?")}, ["Hi", "Hello.", "Why?"]),
        ({"messages": said("Hi", "Hello.", "Why?", "So.")}, ["Hi", "Hello.", "Why?"]),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]}, ["Hi"]),
        ({"prompt": "Hi", "response": "Hello."}, ["Hi"]),
        ({"messages": said("Welcome.", "Hi", first="assistant")}, ["Welcome.", "Hi"]),
    ],
)
def test_shapes(tmp_path: Path, row: dict[str, Any], expected: list[str]) -> None:
    (found,), bad = read(tmp_path, row | {"mine": 1})
    assert [message["content"] for message in found.messages] == expected
    assert found.messages[-1]["role"] == "user"
    assert found.extra["mine"] == 1
    assert not bad


def test_start_first_leaves_the_rest_out(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    (found,), _ = read(tmp_path, {"messages": [system, *said("Hi", "Hello.", "Why?")]}, start="first")
    assert [message["content"] for message in found.messages] == ["Be brief.", "Hi"]


def test_bad_rows_have_a_reason_and_ids_stay_unique(tmp_path: Path) -> None:
    rows = [{"prompt": ""}, {"prompt": 7}, {"messages": said("Welcome.", first="assistant")}, {"text": "Hi"}, 3]
    found, bad = read(tmp_path, *rows, {"id": "x", "prompt": "Hi"}, {"id": "x", "prompt": "Ho"}, {"prompt": "Hi"})
    assert [conversation.id for conversation in found[:2]] == ["x", "x~2"]
    assert len({conversation.id for conversation in found}) == 3
    assert bad == {"no prompt": 2, "wrong type": 1, "no conversation": 1, "not an object": 1}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_next_user_prompt_begins_with_the_answer_s(tmp_path: Path, family: Family) -> None:
    template = ChatTemplate(family.tokenizer(tmp_path))
    dialogue = DIALOGUES["two"]
    for end in (1, 3):
        prompt = template.next_prompt(dialogue[:end])
        assert prompt == template.answer_prompt(dialogue[:end])
        following = template.next_prompt(dialogue[: end + 1])
        assert following == template.user_prompt(dialogue[: end + 1])
        answer = str(dialogue[end]["content"])
        assert following.text.startswith(prompt.text + answer)
        assert following.token_ids[: len(prompt.token_ids)] == prompt.token_ids
        if template.headers.assistant is not None:
            assert prompt.text.endswith(template.headers.assistant)
        assert (prompt.stop, prompt.stop_token_ids) == (following.stop, following.stop_token_ids)
    with pytest.raises(TemplateError, match="must end with a user message"):
        template.answer_prompt(dialogue)


def test_answers_are_read() -> None:
    def content(text: str) -> Any:
        message = read_answer(text, "stop", None).message
        return message and dict(message)

    assert content(" Nine.\n") == {"role": "assistant", "content": "Nine."}
    assert content("hm\n</think>\nNine.") == {"role": "assistant", "content": "Nine.", "reasoning_content": "hm"}
    assert content("<think></think>Nine.") == {"role": "assistant", "content": "Nine."}
    assert content("<think>hm</think>\n") is None
    assert content("<think>hm") is None
    assert read_answer("Nine", "length", None).cut
