"""Opens the engine that the options name; each engine's module is imported only then."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selfplay.engines.base import Engine
from selfplay.errors import EngineError, UsageError

ENGINES = ("transformers", "sglang", "openai")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to reach or start an engine. None of it decides what is sampled; `SampleConfig` does."""

    engine: str = "transformers"
    model: str | None = None
    revision: str | None = None
    base_urls: tuple[str, ...] = ()
    launch: bool = False
    in_process: bool = False
    chat: bool = False
    python: str | None = None
    server_args: tuple[str, ...] = ()
    sites_per_batch: int = 4
    device: str | None = None
    dtype: str = "auto"
    max_in_flight: int | None = None
    timeout: float | None = None


def check(options: EngineOptions) -> None:
    """Refuses combinations that mean nothing.

    Raises:
        UsageError: Naming the option that does not fit.
    """
    if options.engine not in ENGINES:
        raise UsageError(f"no engine {options.engine!r}; engines are {', '.join(ENGINES)}")
    ways = [bool(options.base_urls), options.launch, options.in_process]
    if options.engine == "sglang" and sum(ways) != 1:
        raise UsageError("--engine sglang needs one of --base-url URL, --launch or --in-process")
    if options.engine == "openai" and len(options.base_urls) > 1:
        raise UsageError("--engine openai takes one --base-url; put a router in front of several servers")
    if options.engine != "sglang" and (options.launch or options.in_process):
        raise UsageError(f"--launch and --in-process go with --engine sglang, not {options.engine}")
    if options.engine == "transformers" and options.base_urls:
        raise UsageError("--base-url goes with --engine sglang or openai; transformers runs in this process")
    if options.chat and options.engine != "openai":
        raise UsageError("--chat goes with --engine openai")


def open_engine(
    options: EngineOptions,
    model: str,
    log: Path,
    share_cpu: bool = False,
    state_layer: int | None = None,
    state_tokens: int = 0,
    answering: bool = False,
) -> Engine:
    """The engine, ready to sample.

    Args:
        model: Embedded name, folder or Hugging Face id.
        log: Where a server that we launch writes its log.
        share_cpu: Leave half of the CPU to whatever else runs in this process.
        state_layer: Layer whose states are gathered while sampling, over the first `state_tokens` tokens of each turn,
            by engines that can.
        answering: It speaks for the assistant: with `options.chat` it is asked for the answer, not for a user's turn.

    Raises:
        EngineError: The engine cannot be reached or started.
    """
    limits = {name: value for name in ("max_in_flight", "timeout") if (value := getattr(options, name)) is not None}
    if options.engine == "transformers":
        from selfplay.engines.transformers import TransformersEngine

        return TransformersEngine(
            model,
            revision=options.revision,
            device=options.device,
            dtype=options.dtype,
            sites_per_batch=options.sites_per_batch,
            share_cpu=share_cpu,
            state_layer=state_layer,
            state_tokens=state_tokens,
        )
    if options.engine == "openai":
        from selfplay.engines.openai import OpenAIEngine

        url = options.base_urls[0] if options.base_urls else None
        mode = "completions" if not options.chat else "answer" if answering else "chat"
        return OpenAIEngine(url, model, mode=mode, **limits)
    from selfplay.engines.sglang import SglangEngine
    from selfplay.models import resolve

    if options.launch:
        return SglangEngine.launch(
            resolve(model), python=options.python, log_path=log, extra_args=options.server_args, **limits
        )
    if options.in_process:
        return SglangEngine.in_process(resolve(model), **limits, **as_keywords(options.server_args))
    return SglangEngine(list(options.base_urls), **limits)


def as_keywords(arguments: Sequence[str]) -> dict[str, Any]:
    """`--tp-size=2` as `{"tp_size": 2}`: what the server takes as flags, `sglang.Engine` takes as keywords.

    Raises:
        UsageError: An argument that is not `--name` or `--name=value`.
    """
    keywords: dict[str, Any] = {}
    for argument in arguments:
        name, given, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not name:
            raise UsageError(f"--server-arg {argument!r}: with --in-process write --server-arg=--name=value")
        try:
            keywords[name.replace("-", "_")] = json.loads(value) if given else True
        except ValueError:
            keywords[name.replace("-", "_")] = value
    return keywords


def served_model(options: EngineOptions) -> str:
    """The model that a server by URL says it serves, where `--model` does not name one.

    Raises:
        EngineError: The server does not answer, or does not tell.
    """
    import httpx

    url = options.base_urls[0].rstrip("/")
    path = "/get_model_info" if options.engine == "sglang" else "/models"
    headers = {"Authorization": f"Bearer {key}"} if (key := os.environ.get("OPENAI_API_KEY")) else {}
    try:
        answer = httpx.get(url + path, timeout=30.0, headers=headers, trust_env=not is_local(url)).json()
        model = answer["model_path"] if options.engine == "sglang" else answer["data"][0]["id"]
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        raise EngineError(f"{url} does not tell its model ({error}); is it up? Else name it with --model") from None
    return str(model)


def is_local(url: str) -> bool:
    """Whether a URL names this machine, which no proxy should be asked for."""
    return (urlsplit(url).hostname or "") in ("localhost", "127.0.0.1", "::1")
