"""Promises: the prompt is exactly what the template puts before the user's next message, and stops end that turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfplay.jinja import TemplateError
from selfplay.templates import ChatTemplate
from tests.families import DIALOGUES, FAMILIES, Family

CASES = [(family, dialogue) for family in FAMILIES for dialogue in family.prompts]


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChatTemplate]:
    folder: Path = tmp_path_factory.mktemp("families")
    return {family.name: ChatTemplate(family.tokenizer(folder / family.name)) for family in FAMILIES}


@pytest.mark.parametrize(("family", "dialogue"), CASES, ids=[f"{f.name}-{d}" for f, d in CASES])
def test_prompt_text_is_exact(templates: dict[str, ChatTemplate], family: Family, dialogue: str) -> None:
    expected = family.prompts[dialogue]
    if expected.startswith("!"):
        with pytest.raises(TemplateError, match="refuses") as caught:
            templates[family.name].user_prompt(DIALOGUES[dialogue])
        text = str(caught.value)
        assert expected[1:].lower() in text.lower()
        assert family.name in text
        assert "\n" not in text
    else:
        assert templates[family.name].user_prompt(DIALOGUES[dialogue]).text == expected


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_stops_are_exact(templates: dict[str, ChatTemplate], family: Family) -> None:
    template = templates[family.name]
    prompt = template.user_prompt(DIALOGUES["two"])
    assert prompt.stop == family.stop
    assert prompt.stop_token_ids == tuple(sorted(template.tokenizer.token_id(end) for end in family.ends.split()))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
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
