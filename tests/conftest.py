"""Fixtures that several test files share."""

from __future__ import annotations

import os

import pytest

from selfplay.prompting.templates import ChatTemplate
from selfplay.prompting.tokenizer import load_tokenizer


@pytest.fixture(scope="session")
def smollm2() -> str:
    """Folder of the real SmolLM2-135M-Instruct: $SELFPLAY_TEST_MODEL, or the embedded one if it has been fetched."""
    return model_folder(fetch=False)


def model_folder(fetch: bool) -> str:
    """The folder that tests find SmolLM2 in; without one they skip, or fetch it."""
    from selfplay.models import EMBEDDED, ensure, is_here

    given = os.environ.get("SELFPLAY_TEST_MODEL")
    if given:
        return given
    if not fetch and not is_here(EMBEDDED["smollm2-135m"]):
        pytest.skip("no SmolLM2 here: `selfplay models get smollm2-135m`, or set SELFPLAY_TEST_MODEL")
    return str(ensure("smollm2-135m"))


@pytest.fixture(scope="session")
def smollm2_template(smollm2: str) -> ChatTemplate:
    """Prompts of the real SmolLM2."""
    return ChatTemplate(load_tokenizer(smollm2))
