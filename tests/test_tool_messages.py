"""Promises: tool calls and their results stand in the prompt as the template has them, or the site gets one error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selfplay.core import Message
from selfplay.prompting.jinja import TemplateError
from selfplay.prompting.templates import ChatTemplate
from tests.families import FAMILIES, HARMONY, LLAMA, QWEN, assistant, user
from tests.toy_tokenizer import toy_tokenizer


def dialogue(arguments: Any, content: str | None) -> list[Message]:
    """A call with its result and an answer, as OpenAI (arguments a string) or Hugging Face (an object) has it."""
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    return [
        user("Rain?"),
        {"role": "assistant", "content": content, "tool_calls": [call], "name": None},
        {"role": "tool", "content": "dry", "tool_call_id": "call_1", "tool_calls": None},
        assistant("No.", tool_calls=None),
    ]


EXACT = {
    "qwen2_5": QWEN + "<|im_start|>user\nRain?<|im_end|>\n"
    '<|im_start|>assistant\n<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call><|im_end|>\n'
    "<|im_start|>user\n<tool_response>\ndry\n</tool_response><|im_end|>\n"
    "<|im_start|>assistant\nNo.<|im_end|>\n<|im_start|>user\n",
    "gpt_oss": HARMONY + "<|start|>user<|message|>Rain?<|end|>"
    '<|start|>assistant to=functions.weather<|channel|>commentary json<|message|>{"city": "Köln"}<|end|>'
    '<|start|>functions.weather to=assistant<|channel|>commentary<|message|>"dry"<|end|>'
    "<|start|>assistant<|channel|>final<|message|>No.<|end|><|start|>user<|message|>",
    "glm_4_5": "[gMASK]<sop><|user|>\nRain?<|assistant|>\n<think></think>\n"
    "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Köln</arg_value>\n</tool_call>"
    "<|observation|>\n<tool_response>\ndry\n</tool_response><|assistant|>\n<think></think>\nNo.<|user|>\n",
    "llama_3_1": LLAMA + "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nRain?<|eot_id|>"
    '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "weather", "parameters": {"city": "Köln"}}<|eot_id|>'
    '<|start_header_id|>ipython<|end_header_id|>\n\n"dry"<|eot_id|>'
    "<|start_header_id|>assistant<|end_header_id|>\n\nNo.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
    "deepseek_v3": "<｜begin▁of▁sentence｜><｜User｜>Rain?<｜Assistant｜><｜tool▁calls▁begin｜>"
    '<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{"city": "Köln"}\n```<｜tool▁call▁end｜>'
    "<｜tool▁calls▁end｜><｜end▁of▁sentence｜>"
    "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>dry<｜tool▁output▁end｜>"
    "<｜tool▁outputs▁end｜>No.<｜end▁of▁sentence｜><｜User｜>",
}


@pytest.mark.parametrize("content", [None, ""])
@pytest.mark.parametrize("arguments", ['{"city": "Köln"}', {"city": "Köln"}], ids=["string", "object"])
@pytest.mark.parametrize("name", EXACT)
def test_call_and_result_are_exact(tmp_path: Path, name: str, arguments: Any, content: str | None) -> None:
    family = next(family for family in FAMILIES if family.name == name)
    template = ChatTemplate(family.tokenizer(tmp_path))
    assert template.user_prompt(dialogue(arguments, content)).text == EXACT[name]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("smollm2", "leaves out the tool call weather"),
        ("gemma_3", "roles must alternate"),
        ("phi_3_5", "leaves out the tool call weather"),
    ],
)
def test_template_without_tools_gives_one_error(tmp_path: Path, name: str, reason: str) -> None:
    family = next(family for family in FAMILIES if family.name == name)
    template = ChatTemplate(family.tokenizer(tmp_path))
    with pytest.raises(TemplateError, match=reason):
        template.user_prompt(dialogue('{"city": "Köln"}', None))


def test_result_that_the_template_drops_is_told(tmp_path: Path) -> None:
    source = "{% for m in messages if m.role != 'tool' %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    template = ChatTemplate(toy_tokenizer(tmp_path, source))
    with pytest.raises(TemplateError, match="leaves out a tool's result"):
        template.user_prompt([user("Rain?"), {"role": "tool", "content": "dry"}, assistant("No.")])


def test_empty_content_is_never_written_as_none(tmp_path: Path) -> None:
    source = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}<|end|>{% endfor %}"
    )
    template = ChatTemplate(toy_tokenizer(tmp_path, source))
    assert template.user_prompt(dialogue("{}", None)).text == (
        "<|user|>Rain?<|end|><|assistant|>weather<|end|><|tool|>dry<|end|><|assistant|>No.<|end|><|user|>"
    )
