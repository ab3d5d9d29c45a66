"""Retries end, wait as told, and fail in one line."""

from __future__ import annotations

import asyncio
import email.utils
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.engines import retry
from selfplay.engines.circuit import STRIKES, Circuit
from selfplay.engines.retry import Failure, Policy
from selfplay.errors import EngineError
from selfplay.terminal import one_line

FAST = Policy(retries=3, patience=5.0, longest_wait=0.01)


class Attempts:
    """Fails with the given failures in turn, then returns 42."""

    def __init__(self, *failures: Failure) -> None:
        self.failures = list(failures)
        self.times: list[float] = []

    async def __call__(self) -> int:
        self.times.append(time.monotonic())
        if self.failures:
            raise self.failures.pop(0)
        return 42


def run(attempts: Attempts, policy: Policy = FAST) -> int:
    return asyncio.run(retry.persist(attempts, policy))


def test_returns_once_an_attempt_succeeds() -> None:
    attempts = Attempts(Failure("a", retry=True), Failure("b", retry=True))
    assert run(attempts) == 42
    assert len(attempts.times) == 3


def test_counted_failures_end_after_the_retries() -> None:
    attempts = Attempts(*(Failure(f"fault {i}", retry=True) for i in range(9)))
    with pytest.raises(Failure, match="fault 3"):
        run(attempts)
    assert len(attempts.times) == FAST.retries + 1


def test_a_hopeless_failure_is_not_tried_again() -> None:
    attempts = Attempts(Failure("no such model", retry=False))
    with pytest.raises(Failure, match="no such model"):
        run(attempts)
    assert len(attempts.times) == 1


def test_an_absent_server_is_waited_for_beyond_the_retries_but_not_beyond_patience() -> None:
    away = [Failure("refused", retry=True, counted=False) for _ in range(10_000)]
    assert run(Attempts(*away[:20])) == 42
    began = time.monotonic()
    with pytest.raises(Failure, match="refused"):
        run(Attempts(*away), Policy(retries=3, patience=0.3, longest_wait=0.01))
    assert 0.25 < time.monotonic() - began < 2.0


def test_retry_after_is_waited_for() -> None:
    attempts = Attempts(retry.from_status(429, b"", "0.3"))
    assert run(attempts) == 42
    assert attempts.times[1] - attempts.times[0] >= 0.3


def test_a_retry_after_beyond_patience_ends_it_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(Failure, match="429"):
        run(Attempts(retry.from_status(429, b"", "3600")))
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    ("status", "again", "counted"),
    [(400, False, True), (401, False, True), (404, False, True), (422, False, True), (500, True, True)]
    + [(status, True, False) for status in (408, 429, 502, 503, 504)],
)
def test_which_statuses_are_tried_again(status: int, again: bool, counted: bool) -> None:
    failure = retry.from_status(status, b"{}", None)
    assert (failure.retry, failure.counted) == (again, counted)


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"message": "too long\\nby far\\u001b[31m"}}',
        b'{"error": "too long\\nby far"}',
        b'{"object": "error", "message": "too long\\u0000by far"}',
        b'{"detail": "too long\\tby far"}',
        b"too long by far",
    ],
)
def test_the_servers_own_words_on_one_clean_line(body: bytes) -> None:
    failure = retry.from_status(400, body, None)
    assert str(failure).startswith("HTTP 400: too long by far")
    assert "\x1b" not in str(failure)


@given(st.text(max_size=400))
def test_one_line_is_one_short_printable_line(text: str) -> None:
    line = one_line(text, retry.LINE)
    assert len(line) <= retry.LINE
    assert line.isprintable()


@given(st.binary(max_size=200), st.sampled_from([400, 429, 500, 503]))
def test_any_error_body_becomes_a_failure(body: bytes, status: int) -> None:
    assert str(retry.from_status(status, body, None)).startswith(f"HTTP {status}")


@given(st.text(max_size=30))
def test_any_retry_after_is_a_sane_wait_or_nothing(header: str) -> None:
    wait = retry.seconds(header)
    assert wait is None or 0.0 <= wait < float("inf")


def test_retry_after_as_a_date() -> None:
    wait = retry.seconds(email.utils.formatdate(time.time() + 30, usegmt=True))
    assert wait is not None
    assert 25 < wait <= 31


def test_refusal_is_absence_but_a_dropped_request_counts() -> None:
    assert retry.from_transport(httpx.ConnectError("refused")).away
    dropped = retry.from_transport(httpx.RemoteProtocolError("Server disconnected"))
    assert dropped.retry
    assert dropped.counted
    assert not retry.from_transport(httpx.UnsupportedProtocol("x://")).retry


def test_circuit_opens_after_strikes_in_a_row_only() -> None:
    circuit = Circuit("X")
    for _ in range(STRIKES - 1):
        circuit.site_failed(Failure("500", retry=True, status=500))
    circuit.site_done()
    for _ in range(STRIKES - 1):
        circuit.site_failed(Failure("500", retry=True, status=500))
    with pytest.raises(EngineError, match="in a row"):
        circuit.site_failed(Failure("500", retry=True, status=500))


def test_contexts_too_long_never_open_the_circuit() -> None:
    circuit = Circuit("X")
    for _ in range(STRIKES * 3):
        circuit.site_failed(Failure("too long", retry=False, status=400))


def test_one_request_away_while_others_succeed_is_no_outage() -> None:
    circuit = Circuit("X")

    async def away() -> int:
        await asyncio.sleep(0.1)
        raise Failure("refused", retry=True, counted=False)

    async def well() -> int:
        await asyncio.sleep(0.08)
        return 1

    async def away_while_another_succeeds() -> None:
        _, failed = await asyncio.gather(circuit.request(well), circuit.request(away), return_exceptions=True)
        assert isinstance(failed, Failure)

    asyncio.run(away_while_another_succeeds())
    with pytest.raises(EngineError, match="stays away"):
        asyncio.run(circuit.request(away))
