"""Promises: the prompt is exactly what the template puts before the user's next message, and stops end that turn."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.core import Message
from selfplay.errors import SelfplayError
from selfplay.prompting.jinja import TemplateError
from selfplay.prompting.templates import ChatTemplate
from tests.families import DIALOGUES, FAMILIES, TEMPLATES, Family, assistant, user
from tests.toy_tokenizer import toy_tokenizer

CASES = [(family, dialogue) for family in FAMILIES for dialogue in family.prompts]
EXACT = [family.name for family in FAMILIES if not family.name.startswith(("gemma", "llama", "glm", "qwen3_5"))]
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChatTemplate]:
    folder = tmp_path_factory.mktemp("families")
    return {family.name: ChatTemplate(family.tokenizer(folder / family.name)) for family in FAMILIES}


@pytest.mark.parametrize(("family", "dialogue"), CASES, ids=[f"{f.name}-{d}" for f, d in CASES])
def test_prompt_text_is_exact(templates: dict[str, ChatTemplate], family: Family, dialogue: str) -> None:
    expected = family.prompts[dialogue]
    if not expected.startswith("!"):
        prompt = templates[family.name].user_prompt(DIALOGUES[dialogue])
        assert prompt.text == expected
        return
    with pytest.raises(TemplateError) as caught:
        templates[family.name].user_prompt(DIALOGUES[dialogue])
    text = str(caught.value)
    assert expected[1:].lower() in text.lower()
    assert family.name in text
    assert "\n" not in text


@every_family
def test_stops_are_exact(templates: dict[str, ChatTemplate], family: Family) -> None:
    template = templates[family.name]
    prompt = template.user_prompt(DIALOGUES["two"])
    assert prompt.stop == family.stop
    ends = [template.tokenizer.token_id(end) for end in family.ends.split()]
    assert list(prompt.stop_token_ids) == sorted(end for end in ends if end is not None)
    assert None not in ends


@every_family
def test_bare_prompt_and_assistant_header(templates: dict[str, ChatTemplate], family: Family) -> None:
    template = templates[family.name]
    assert template.bare_user_prompt().text == family.bare
    assert template.headers.assistant == family.assistant
    prompt = template.assistant_prompt(DIALOGUES["two"])
    if family.assistant is None:
        assert prompt is None
    else:
        two = family.prompts["two"]
        assert prompt is not None
        assert prompt.text == two[: len(two) - len(template.headers.user)] + family.assistant


@every_family
def test_system_can_be_dropped_and_set(templates: dict[str, ChatTemplate], family: Family) -> None:
    template = templates[family.name]
    system, bare = DIALOGUES["system"], DIALOGUES["system"][1:]
    assert template.user_prompt(system, "drop") == template.user_prompt(bare)
    if family.prompts["system"].startswith("!"):
        with pytest.raises(TemplateError, match="System role not supported"):
            template.user_prompt(bare, "Be brief.")
    else:
        assert template.user_prompt(bare, "Be brief.").text == family.prompts["system"]
        assert (
            template.user_prompt([{"role": "system", "content": "Old."}, *bare], "Be brief.").text
            == (family.prompts["system"])
        )


@every_family
def test_empty_answer_keeps_everything_else(templates: dict[str, ChatTemplate], family: Family) -> None:
    template = templates[family.name]
    messages, note = template.empty_answer(DIALOGUES["two"])
    assert note == "empty"
    text = template.user_prompt(messages).text
    assert "".join(text.split()) == "".join(family.prompts["two"].replace("Because.", "").split())


def test_token_ids_end_before_a_space_that_joins_the_next_word(tmp_path: Path) -> None:
    template = ChatTemplate(toy_tokenizer(tmp_path, (TEMPLATES / "mistral_v3.jinja").read_text(), joins_space=True))
    prompt = template.user_prompt(DIALOGUES["two"])
    assert prompt.text.endswith("[INST] ")
    assert template.tokenizer.decode(prompt.token_ids[-1:]) == "[INST]"


texts = st.text("aZ9 \t\n\r\"'\\{}%#|>]/é漢😀\u200b\xa0\x00", max_size=30)
exchanges = st.lists(st.tuples(texts, texts), min_size=1, max_size=4)


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
@settings(max_examples=15, deadline=None)
@given(exchanges=exchanges)
def test_any_content_stays_in_the_prompt(
    templates: dict[str, ChatTemplate], name: str, exchanges: list[tuple[str, str]]
) -> None:
    template = templates[name]
    messages = [message for asked, said in exchanges for message in (user(asked), assistant(said))]
    text = template.user_prompt(messages).text
    assert text.endswith(template.headers.user)
    assert exchanges[-1][1].strip() in text
    if name in EXACT:
        assert exchanges[-1][1] in text
    for end in range(2, len(messages), 2):
        earlier = template.user_prompt(messages[:end]).text
        assert text.startswith(earlier.removesuffix(template.headers.user)), "history is rewritten"


def test_context_must_end_with_the_assistant(templates: dict[str, ChatTemplate]) -> None:
    for messages in ([], [user("Hi")]):
        with pytest.raises(SelfplayError, match="must end with an assistant"):
            templates["smollm2"].user_prompt(messages)


def test_content_that_holds_the_sentinel(templates: dict[str, ChatTemplate]) -> None:
    messages = [user("qZ7selfplayTurnXq"), assistant("qZ7selfplayTurnXqq")]
    assert templates["qwen3"].user_prompt(messages).text.endswith("qZ7selfplayTurnXqq<|im_end|>\n<|im_start|>user\n")


def test_thinking_field_of_history_is_dropped(templates: dict[str, ChatTemplate]) -> None:
    thought: list[Message] = [user("Hi"), assistant("Hello.", thinking="hm", reasoning_content="hm")]
    for name in ("gpt_oss", "qwen3"):
        assert "hm" not in templates[name].user_prompt(thought).text


BROKEN = {
    "leaves out a later user message": "{% for m in messages[:2] %}{{ m.content }}|{% endfor %}",
    "repeats an earlier user message": "{{ messages[0].content }}{% for m in messages %}{{ m.content }}|{% endfor %}",
    "reorders messages": "{% for m in messages | reverse %}{{ m.content }}|{% endfor %}",
    "refuses this conversation: only one user turn": (
        "{% if messages | length > 2 %}{{ raise_exception('only one\nuser turn') }}{% endif %}{{ messages[0].content }}"
    ),
    "leaves out an earlier user message": "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
}


@pytest.mark.parametrize(("reason", "source"), BROKEN.items())
def test_template_that_cannot_do_it_says_why(tmp_path: Path, reason: str, source: str) -> None:
    with pytest.raises(TemplateError) as caught:
        ChatTemplate(toy_tokenizer(tmp_path, source))
    assert reason in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_template_that_takes_only_parts(tmp_path: Path) -> None:
    source = (
        "{% for m in messages %}<|{{ m.role }}|>"
        "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}<|end|>{% endfor %}"
    )
    template = ChatTemplate(toy_tokenizer(tmp_path, source))
    assert (
        template.user_prompt([user("Hi"), assistant("Yes.")]).text
        == "<|user|>Hi<|end|><|assistant|>Yes.<|end|><|user|>"
    )


def test_template_without_control_tokens_stops_at_plain_tags(tmp_path: Path) -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ '### Instruction:\n' ~ m.content ~ '\n\n' }}"
        "{% else %}{{ '### Response:\n' ~ m.content ~ '\n\n' }}{% endif %}{% endfor %}"
    )
    prompt = ChatTemplate(toy_tokenizer(tmp_path, source)).user_prompt([user("Hi"), assistant("Yes.")])
    assert prompt.text == "### Instruction:\nHi\n\n### Response:\nYes.\n\n### Instruction:\n"
    assert prompt.stop == ("\n### Response:", "\n### Instruction:")


def test_template_that_skips_empty_turns_gets_a_neutral_answer(tmp_path: Path) -> None:
    source = "{% for m in messages %}{% if m.content %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    messages, note = ChatTemplate(toy_tokenizer(tmp_path, source)).empty_answer([user("Hi"), assistant("Yes.")])
    assert messages == (user("Hi"), assistant("OK."))
    assert note == "neutral: OK."


def test_system_text_that_the_template_ignores_is_told(tmp_path: Path) -> None:
    source = "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    with pytest.raises(TemplateError, match="leaves out the system message"):
        ChatTemplate(toy_tokenizer(tmp_path, source)).user_prompt([user("Hi"), assistant("Yes.")], "Be brief.")


def test_prompt_of_the_real_smollm2(smollm2_template: ChatTemplate) -> None:
    prompt = smollm2_template.user_prompt(DIALOGUES["system"])
    assert prompt.text == next(f for f in FAMILIES if f.name == "smollm2").prompts["system"]
    assert prompt.token_ids == (
        *(1, 9690, 198, 6077, 5453, 30, 2, 198),
        *(1, 4093, 198, 26843, 2, 198),
        *(1, 520, 9531, 198, 19556, 30, 2, 198),
        *(1, 4093, 198),
    )
    assert (prompt.stop, prompt.stop_token_ids) == ((), (2,))
    assert smollm2_template.bare_user_prompt().token_ids == (1, 4093, 198)
