"""Answers in SGLang's native format, for servers that tests script."""

from __future__ import annotations

from typing import Any

from selfplay.core import Draw, Prompt
from selfplay.engines.base import SampleRequest
from tests.scripted_server import Answer

INFO = {"model_path": "fake", "version": "0.5.23", "enable_deterministic_inference": False}


def generated(payload: dict[str, Any], **meta: Any) -> dict[str, Any]:
    """The answer to one `/generate` payload: nothing for a primer, else the turn `ok` ended by token 2."""
    rows = [] if payload["sampling_params"]["max_new_tokens"] == 0 else [[-0.5, 7, "ok"], [-0.1, 2, "<end>"]]
    if "top_logprobs_num" in payload:
        temperature = payload["sampling_params"]["temperature"]
        meta["output_top_logprobs"] = [[[-0.2 / temperature, 7, None], [-2.2 / temperature, 8, None]]]
    return {
        "text": "ok" if rows else "",
        "output_ids": [row[1] for row in rows],
        "meta_info": {
            "finish_reason": {"type": "stop", "matched": 2} if rows else {"type": "length", "length": 0},
            "completion_tokens": len(rows),
            "cached_tokens": max(0, len(payload["input_ids"]) - 1) if rows else 0,
            "output_token_logprobs": rows,
            **meta,
        },
    }


def healthy(path: str, payload: Any) -> Answer:
    """A server with nothing wrong."""
    return Answer(INFO) if path == "/server_info" else Answer(generated(payload))


def site(key: str, n: int = 2, temperature: float = 1.0, ids: tuple[int, ...] = (1, 4, 9)) -> SampleRequest:
    """A request for `n` draws."""
    prompt = Prompt("irrelevant", ids, (), (2,))
    return SampleRequest(key, prompt, tuple(Draw(temperature, i, 1000 + i) for i in range(n)))
