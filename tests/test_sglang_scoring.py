"""How scoring uses a server's prefix cache: one primer per prefix, prefixes that begin alike one after another."""

from __future__ import annotations

from typing import Any

import pytest

from selfplay.engines.base import ScoreRequest
from tests.scripted_server import Answer, scripted
from tests.sglang_fakes import INFO
from tests.test_sglang_faults import engine_for


class Radix:
    """A prefix cache as SGLang has it: knows what it has computed, in whatever order requests come."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.computed = 0

    def __call__(self, path: str, payload: Any) -> Answer:
        if path != "/generate":
            return Answer(INFO)
        many = isinstance(payload["input_ids"][0], list)
        answers = [self.one(ids, payload) for ids in (payload["input_ids"] if many else [payload["input_ids"]])]
        return Answer(answers if many else answers[0])

    def one(self, ids: list[int], payload: Any) -> dict[str, Any]:
        most = payload.get("logprob_start_len", len(ids) - 1)
        cached = min(most, max((common(ids, old) for old in self.seen), default=0))
        self.seen.append(ids)
        self.computed += len(ids) - cached
        rows = [[None if place == 0 else -float(token), token, None] for place, token in enumerate(ids)]
        meta = {"cached_tokens": cached, "input_token_logprobs": rows, "finish_reason": {"type": "length", "length": 0}}
        return {"text": "", "meta_info": {**meta, "completion_tokens": 0, "output_token_logprobs": []}}


def common(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def test_a_prefix_is_computed_once_and_the_count_says_so() -> None:
    radix = Radix()
    shared = tuple(range(100, 200))
    requests = [ScoreRequest((*shared, last), ((5, 6), (7,), (8, 9, 10))) for last in (1, 2, 3)]
    with scripted(radix) as server:
        engine = engine_for(server.url)
        found = engine.score(requests)
        engine.close()
    assert found == [[[-5.0, -6.0], [-7.0], [-8.0, -9.0, -10.0]]] * 3
    # 101 for the first prefix and 1 each for the headers of the others (and the last token of each, asked anew for
    # its logits), 6 per request for the turns and, since logprobs begin there, one more for each of them.
    assert radix.computed < 150, "the shared beginning was computed more than once"
    assert engine.scored.tokens == 3 * (3 * 101 + 6)
    assert engine.scored.tokens - engine.scored.cached == pytest.approx(radix.computed, abs=6)
    assert engine.scored.cached / engine.scored.tokens > 0.8


def test_a_prefix_that_fails_does_not_keep_the_next_one_waiting() -> None:
    radix = Radix()
    requests = [ScoreRequest((*range(100, 150), last), ((5,), (6,))) for last in (1, 2)]

    def refuses(path: str, payload: Any) -> Answer:
        return Answer({"error": "too long"}, status=400) if path == "/generate" else radix(path, payload)

    with scripted(refuses) as server:
        engine = engine_for(server.url)
        with pytest.raises(Exception, match="could not score"):
            engine.score(requests)
        engine.close()
