"""The schedule over the prefix cache: what is sent when, to whom, and how much at once."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from selfplay.core import Draw, Prompt, Sampling
from selfplay.engines.base import SampleRequest
from selfplay.engines.endpoints import HttpTransport
from selfplay.engines.retry import Failure, Policy
from selfplay.engines.sglang import SglangEngine
from tests.scripted_server import closed_port
from tests.sglang_fakes import INFO, generated, site


class FakeTransport:
    """Answers after a moment; `log` holds ("start" | "end", kind, prompt) in order."""

    def __init__(self, info: dict[str, Any] = INFO, respond: Callable[[dict[str, Any]], Any] = generated) -> None:
        self.log: list[tuple[str, str, tuple[int, ...]]] = []
        self.payloads: list[dict[str, Any]] = []
        self.flying = self.most = 0
        self._info, self._respond = info, respond

    async def generate(self, payload: dict[str, Any], affinity: str) -> Any:
        self.payloads.append(payload)
        kind = "draw" if payload["sampling_params"]["max_new_tokens"] else "primer"
        entry = (kind, tuple(payload["input_ids"]))
        self.log.append(("start", *entry))
        self.flying += 1
        self.most = max(self.most, self.flying)
        await asyncio.sleep(0.01)
        self.flying -= 1
        self.log.append(("end", *entry))
        return self._respond(payload)

    async def everywhere(self, payload: dict[str, Any]) -> list[Any]:
        return [self._respond(payload)]

    async def info(self) -> list[dict[str, Any]]:
        return [self._info]

    async def aclose(self) -> None: ...


def test_draws_wait_for_their_primer() -> None:
    transport = FakeTransport()
    engine = SglangEngine(transport=transport)
    list(engine.sample([site(f"{i}#1", n=3, ids=(i, 2)) for i in range(5)], Sampling()))
    engine.close()
    for i in range(5):
        own = [entry[:2] for entry in transport.log if entry[2] == (i, 2)]
        assert own[:2] == [("start", "primer"), ("end", "primer")]
        assert own.count(("start", "draw")) == 3


def test_a_single_draw_needs_no_primer() -> None:
    transport = FakeTransport()
    engine = SglangEngine(transport=transport)
    list(engine.sample([site("a#1", n=1)], Sampling()))
    engine.close()
    assert [entry[:2] for entry in transport.log] == [("start", "draw"), ("end", "draw")]


def test_primers_run_side_by_side_except_within_a_conversation() -> None:
    transport = FakeTransport()
    engine = SglangEngine(transport=transport)
    sites = [site(f"{c}#{k}", ids=(c, *range(k))) for c in (1, 2, 3) for k in (1, 3, 5)]
    list(engine.sample(sites, Sampling()))
    engine.close()
    primers = [entry for entry in transport.log if entry[1] == "primer"]
    assert [entry[0] for entry in primers[:3]] == ["start"] * 3, "one per conversation at once"
    for c in (1, 2, 3):
        own = [(when, len(ids)) for when, _, ids in primers if ids[0] == c]
        assert own == [(when, length) for length in (2, 4, 6) for when in ("start", "end")]


def test_a_failed_primer_does_not_fail_the_next_site_of_its_conversation() -> None:
    def respond(payload: dict[str, Any]) -> Any:
        if payload["input_ids"] == [1]:
            raise Failure("HTTP 400: too long", retry=False, status=400)
        return generated(payload)

    engine = SglangEngine(transport=FakeTransport(respond=respond))
    results = {r.key: r for r in engine.sample([site("c#1", ids=(1,)), site("c#3", ids=(1, 2))], Sampling())}
    engine.close()
    assert results["c#1"].error == "HTTP 400: too long"
    assert len(results["c#3"].candidates) == 2


def test_requests_are_pulled_lazily_and_bounded_in_flight() -> None:
    transport = FakeTransport()
    engine = SglangEngine(transport=transport, max_in_flight=8)
    pulled = itertools.count()
    last = 0

    def endless() -> Iterator[SampleRequest]:
        nonlocal last
        for last in pulled:
            yield site(f"{last}#1", n=4, ids=(last, 1))

    results = engine.sample(endless(), Sampling())
    assert last == 0, "nothing is pulled before anybody asks"
    for _ in range(10):
        next(results)
    assert last <= 10 + 8 // 4 + 1
    assert transport.most <= 8 + 3
    results.close()  # type: ignore[attr-defined]
    engine.close()


def test_candidates_keep_the_order_of_their_draws_and_the_primer_stands_for_the_first() -> None:
    engine = SglangEngine(transport=FakeTransport())
    (result,) = engine.sample([site("a#1", n=5, ids=(1, 2, 3, 4))], Sampling())
    engine.close()
    assert [c.draw.sample for c in result.candidates] == [0, 1, 2, 3, 4]
    assert [c.cached_tokens for c in result.candidates] == [0, 3, 3, 3, 3]


def test_the_payload_says_what_was_asked_for() -> None:
    transport = FakeTransport()
    engine = SglangEngine(transport=transport)
    prompt = Prompt("x", (1, 2), ("\nstop",), (2, 7))
    request = SampleRequest("a#1", prompt, (Draw(0.7, 0, 2**64 - 1),))
    list(engine.sample([request], Sampling(top_p=0.9, top_k=0, min_p=0.1, max_tokens=33)))
    (payload,) = transport.payloads
    params = payload["sampling_params"]
    assert payload["input_ids"] == [1, 2]
    assert (params["temperature"], params["top_p"], params["top_k"], params["min_p"]) == (0.7, 0.9, -1, 0.1)
    assert (params["max_new_tokens"], params["stop"], params["stop_token_ids"]) == (33, ["\nstop"], [2, 7])
    assert params["skip_special_tokens"] is False
    assert "sampling_seed" not in params
    engine.close()


@pytest.mark.parametrize("deterministic", [True, False])
def test_seeds_are_sent_and_claimed_only_under_deterministic_inference(deterministic: bool) -> None:
    transport = FakeTransport({**INFO, "enable_deterministic_inference": deterministic})
    engine = SglangEngine(transport=transport)
    (result,) = engine.sample([site("a#1")], Sampling())
    engine.close()
    draws = [p["sampling_params"] for p in transport.payloads if p["sampling_params"]["max_new_tokens"]]
    assert [params.get("sampling_seed") for params in draws] == ([1000, 1001] if deterministic else [None, None])
    assert engine.seeded is deterministic
    assert all(candidate.seeded is deterministic for candidate in result.candidates)


def scaled(payload: dict[str, Any]) -> Any:
    return generated(payload)


def unscaled(payload: dict[str, Any]) -> Any:
    answer = generated(payload)
    answer["meta_info"]["output_top_logprobs"] = [[[-0.2, 7, None], [-2.2, 8, None]]]
    return answer


@pytest.mark.parametrize(
    ("respond", "temperature", "known"),
    [(scaled, 0.7, False), (scaled, 1.0, True), (scaled, 0.0, True), (unscaled, 0.7, True)],
)
def test_logprobs_scaled_by_temperature_are_not_passed_off_as_the_models(
    respond: Callable[[dict[str, Any]], Any], temperature: float, known: bool
) -> None:
    engine = SglangEngine(transport=FakeTransport(respond=respond))
    (result,) = engine.sample([site("a#1", n=1, temperature=temperature)], Sampling())
    engine.close()
    assert result.candidates[0].token_logprobs == ((-0.5,) if known else None)
    assert result.candidates[0].token_ids == (7,)


def test_sites_of_one_conversation_share_a_server_and_only_a_dead_servers_sites_move() -> None:
    urls = [f"http://127.0.0.1:{closed_port()}" for _ in range(3)]
    transport = HttpTransport(urls, policy=Policy(), timeout=1.0, connections=1)
    before = {key: transport.choose(key).url for key in map(str, range(300))}
    assert before == {key: transport.choose(key).url for key in before}
    shares = [list(before.values()).count(url) for url in urls]
    assert min(shares) > 50
    assert transport.choose("\ud800").url in urls
    transport.endpoints[0].down_until = float("inf")
    after = {key: transport.choose(key).url for key in before}
    assert all(after[key] == before[key] for key in before if before[key] != urls[0])
    assert urls[0] not in after.values()


def test_leaving_early_cancels_what_is_in_flight() -> None:
    cancelled = threading.Event()

    class Stuck(FakeTransport):
        async def generate(self, payload: dict[str, Any], affinity: str) -> Any:
            if payload["input_ids"][0] == 0:
                return await super().generate(payload, affinity)
            try:
                return await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

    engine = SglangEngine(transport=Stuck())
    results = engine.sample((site(f"{i}#1", n=2, ids=(i, 1)) for i in range(1000)), Sampling())
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert cancelled.wait(5)
    engine.close()


def test_what_the_requests_raise_is_raised() -> None:
    def broken() -> Iterator[SampleRequest]:
        yield site("a#1")
        raise OSError("disk gone")

    engine = SglangEngine(transport=FakeTransport())
    with pytest.raises(OSError, match="disk gone"):
        list(engine.sample(broken(), Sampling()))
    engine.close()
    engine.close()
