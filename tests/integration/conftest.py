"""Real models and servers, each made once per session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfplay.engines.sglang_server import Server, launch
from tests.conftest import model_folder
from tests.integration import sglang_cpu


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two workers share the tests: one server serves all that need it, and what a file sets up is set up once."""
    for item in items:
        if Path(__file__).parent in item.path.parents and isinstance(item, pytest.Function):
            with_server = {"sglang_server", "sglang_python"} & {*item.fixturenames}
            item.add_marker(pytest.mark.xdist_group("sglang" if with_server else item.path.name))


@pytest.fixture(scope="session")
def smollm2() -> str:
    """As in unit tests, and fetched where it is not there."""
    return model_folder(fetch=True)


@pytest.fixture(scope="session")
def sglang_python() -> str:
    """Python of the environment that tests/integration/sglang_cpu/install.sh makes."""
    python = os.environ.get("SELFPLAY_SGLANG_PYTHON")
    if not python:
        pytest.skip("SELFPLAY_SGLANG_PYTHON names no Python with SGLang (tests/integration/sglang_cpu/install.sh)")
    return python


@pytest.fixture(scope="session")
def sglang_server(smollm2: str, sglang_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real SGLang server with SmolLM2 in fp32; takes a minute or two to be ready."""
    log: Path = tmp_path_factory.mktemp("sglang") / "server.log"
    server = launch(
        smollm2,
        python=sglang_python,
        log_path=log,
        extra_args=sglang_cpu.ARGUMENTS,
        env=sglang_cpu.ENV,
        ready_timeout=600,
    )
    yield server
    server.close()
