"""Every fault a server can show: bounded, told in one line, and no other site's business."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from selfplay.core import Sampling
from selfplay.engines.base import SampleResult, ScoreRequest
from selfplay.engines.circuit import STRIKES
from selfplay.engines.endpoints import HttpTransport
from selfplay.engines.retry import Policy
from selfplay.engines.sglang import SglangEngine
from selfplay.errors import EngineError, UsageError
from tests.scripted_server import Answer, closed_port, scripted
from tests.sglang_fakes import INFO, generated, healthy, site

FAST = Policy(retries=2, patience=3.0, longest_wait=0.01)
BAD = (1, 66, 9)
"""Prompt of the site that the server has something against."""


def engine_for(*urls: str, policy: Policy = FAST, timeout: float = 5.0) -> SglangEngine:
    transport = HttpTransport(urls, policy=policy, timeout=timeout, connections=16)
    return SglangEngine(urls, transport=transport)


def sample(engine: SglangEngine, *sites: Any) -> dict[str, SampleResult]:
    try:
        return {result.key: result for result in engine.sample(sites, Sampling(max_tokens=8))}
    finally:
        engine.close()


def against(fault: Callable[[int], Answer | None]) -> Callable[[str, Any], Answer]:
    """Serves well, but answers the k-th request for the bad prompt with `fault(k)` where that is an answer."""
    counts: Counter[str] = Counter()

    def answer(path: str, payload: Any) -> Answer:
        if path == "/generate" and payload["input_ids"] == list(BAD):
            counts["bad"] += 1
            found = fault(counts["bad"])
            if found is not None:
                return found
        return healthy(path, payload)

    return answer


LASTING = {
    "500": Answer({"error": {"message": "CUDA error"}}, status=500),
    "truncated": Answer({"text": "x" * 100}, cut=20),
    "cut JSON": Answer(b'{"text": "never clo'),
    "not UTF-8": Answer(b"\xff\xfe\x00"),
    "wrong shape": Answer(["what"]),
    "no meta": Answer({"text": "ok"}),
    "negative count": Answer(generated({"sampling_params": {"max_new_tokens": 1}, "input_ids": []}, cached_tokens=-1)),
    "dropped": Answer(cut=0),
    "aborted": Answer(
        generated({"sampling_params": {"max_new_tokens": 1}, "input_ids": []}, finish_reason={"type": "abort"})
    ),
}


@pytest.mark.parametrize("name", LASTING)
def test_a_lasting_fault_ends_that_site_and_no_other(name: str) -> None:
    with scripted(against(lambda _: LASTING[name])) as server:
        results = sample(engine_for(server.url), site("a#1"), site("bad#1", n=1, ids=BAD), site("b#1"))
        tried = sum(payload["input_ids"] == list(BAD) for payload in server.payloads())
    error = results["bad#1"].error
    assert error
    assert error.isprintable()
    assert results["bad#1"].candidates == ()
    assert 1 <= tried <= FAST.retries + 1
    for key in ("a#1", "b#1"):
        assert [candidate.turn for candidate in results[key].candidates] == ["ok", "ok"]


@pytest.mark.parametrize("name", ["500", "truncated", "cut JSON", "not UTF-8", "dropped", "aborted"])
def test_a_passing_fault_is_overcome(name: str) -> None:
    with scripted(against(lambda k: LASTING[name] if k == 1 else None)) as server:
        results = sample(engine_for(server.url), site("bad#1", n=1, ids=BAD))
    assert len(results["bad#1"].candidates) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_final_and_says_why(status: int) -> None:
    words = "The input (20700 tokens) is longer\nthan the model's context length"
    with scripted(against(lambda _: Answer({"error": {"message": words}}, status=status))) as server:
        results = sample(engine_for(server.url), site("bad#1", n=1, ids=BAD), site("a#1"))
        assert sum(payload["input_ids"] == list(BAD) for payload in server.payloads()) == 1
    assert results["bad#1"].error == f"HTTP {status}: {words.replace(chr(10), ' ')}"
    assert len(results["a#1"].candidates) == 2


def test_retry_after_is_honoured() -> None:
    times: list[float] = []

    def fault(k: int) -> Answer | None:
        times.append(time.monotonic())
        return Answer({}, status=429, headers={"Retry-After": "1"}) if k == 1 else None

    with scripted(against(fault)) as server:
        results = sample(engine_for(server.url), site("bad#1", n=1, ids=BAD))
    assert len(results["bad#1"].candidates) == 1
    assert times[1] - times[0] >= 1.0


def test_a_hanging_request_times_out() -> None:
    with scripted(against(lambda _: Answer(hang=20))) as server:
        began = time.monotonic()
        results = sample(engine_for(server.url, timeout=0.2), site("bad#1", n=1, ids=BAD), site("a#1"))
    assert "Timeout" in str(results["bad#1"].error)
    assert time.monotonic() - began < 5
    assert len(results["a#1"].candidates) == 2


def test_never_reachable_names_the_url_and_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfplay.engines.endpoints.FIRST_CONTACT", Policy(retries=1, patience=0.2, longest_wait=0.05))
    url = f"http://127.0.0.1:{closed_port()}"
    with pytest.raises(EngineError, match=rf"{url}.*--launch"):
        SglangEngine([url])


def test_another_kind_of_server_is_named_as_such() -> None:
    with scripted(lambda path, payload: Answer({}, status=404)) as server, pytest.raises(EngineError, match="openai"):
        SglangEngine([server.url])


@pytest.mark.parametrize("url", ["localhost:30000", "", "ftp://x", "http://", "http://[", "http://host:port"])
def test_a_bad_url_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="base URL"):
        SglangEngine([url])


def test_a_server_that_comes_back_finishes_every_site() -> None:
    port = closed_port()
    gone = threading.Event()

    def until_killed(path: str, payload: Any) -> Answer:
        if path == "/generate" and payload["input_ids"][0] == 7:
            gone.set()
        return Answer(cut=0) if gone.is_set() else healthy(path, payload)

    first = scripted(until_killed, port)
    server = first.__enter__()
    engine = engine_for(server.url, policy=Policy(retries=3, patience=20.0, longest_wait=0.1))

    def restart() -> None:
        gone.wait()
        first.__exit__(None, None, None)
        time.sleep(0.5)
        second = scripted(healthy, port)
        second.__enter__()
        done.wait()
        second.__exit__(None, None, None)

    done = threading.Event()
    restarter = threading.Thread(target=restart)
    restarter.start()
    sites = [site(f"{i}#1", n=2, ids=(i, 5)) for i in range(30)]
    results = sample(engine, *sites)
    done.set()
    restarter.join()
    assert len(results) == 30
    assert all(len(result.candidates) == 2 for result in results.values()), [r.error for r in results.values()]


def test_an_outage_longer_than_patience_ends_the_engine_and_not_each_site_slowly() -> None:
    with scripted(healthy) as server:
        engine = engine_for(server.url, policy=Policy(retries=2, patience=0.4, longest_wait=0.05))
    began = time.monotonic()
    with pytest.raises(EngineError, match="stays away"):
        sample(engine, *(site(f"{i}#1") for i in range(1000)))
    assert time.monotonic() - began < 5


def test_a_server_that_fails_everything_opens_the_circuit() -> None:
    def answer(path: str, payload: Any) -> Answer:
        return Answer(INFO) if path == "/server_info" else Answer({}, status=500)

    with scripted(answer) as server, pytest.raises(EngineError, match="in a row"):
        sample(engine_for(server.url), *(site(f"{i}#1") for i in range(STRIKES * 20)))
    assert len(server.payloads()) < STRIKES * 20


def test_a_proxy_in_the_environment_does_not_take_local_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    with scripted(healthy) as server:
        assert len(sample(engine_for(server.url), site("a#1"))["a#1"].candidates) == 2


def test_failover_to_the_server_that_lives() -> None:
    with scripted(healthy) as alive, scripted(healthy) as dead:
        engine = engine_for(alive.url, dead.url)
        dead.answer = lambda path, payload: Answer(cut=0)
        results = sample(engine, *(site(f"{i}#1", ids=(i, 3)) for i in range(40)))
        assert dead.payloads(), "both servers should be somebody's first choice"
    assert all(len(result.candidates) == 2 for result in results.values())


def test_scores_that_do_not_belong_to_the_continuation_are_refused() -> None:
    def answer(path: str, payload: Any) -> Answer:
        if path != "/generate":
            return Answer(INFO)
        rows = [[None, 1, None], [-1.0, 4, None], [-2.0, 5, None]]
        return Answer([generated({**payload, "input_ids": []}, input_token_logprobs=rows)])

    with scripted(answer) as server:
        engine = engine_for(server.url)
        assert engine.score([ScoreRequest((1,), ((4, 5),))]) == [[[-1.0, -2.0]]]
        with pytest.raises(EngineError, match="continuation"):
            engine.score([ScoreRequest((1,), ((4, 6),))])
        with pytest.raises(ValueError, match="prefix"):
            engine.score([ScoreRequest((), ((4, 5),))])
        engine.close()
