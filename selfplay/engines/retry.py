"""What is worth another try, for how long, and how a failure reads in one line.

Knows HTTP answers and transport errors; knows nothing of models, payloads or schedules.
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from selfplay.terminal import one_line

Result = TypeVar("Result")

LINE = 300
"""Characters of a server's message that are worth keeping."""

WAITS = frozenset({408, 425, 429, 502, 503, 504})
"""Statuses by which a server or the proxy before it says: not now. Waited for, not counted as attempts."""

OWN_FAULT = frozenset({400, 413, 422})
"""Statuses that concern one request (its context is too long, say) and tell nothing about the next."""


class Failure(Exception):
    """One attempt failed.

    Attributes:
        retry: Whether another attempt can help.
        counted: Whether the attempt counts against `Policy.retries`. A server that is away or asks for patience is
            waited for until `Policy.patience` is over; only faults that a request may itself cause are counted.
        wait: Seconds the server asked for (Retry-After), or None.
        status: HTTP status of an answer that was no success, else None.
        reached: False where the connection failed, so that another server may do better.
    """

    def __init__(
        self,
        message: str,
        *,
        retry: bool,
        counted: bool = True,
        wait: float | None = None,
        status: int | None = None,
        reached: bool = True,
    ) -> None:
        super().__init__(one_line(message[: 20 * LINE], LINE))
        self.retry = retry
        self.counted = counted
        self.wait = wait
        self.status = status
        self.reached = reached

    @property
    def away(self) -> bool:
        """The server was not there or not ready, so the request itself is not to blame."""
        return self.retry and not self.counted


@dataclass(frozen=True, slots=True)
class Policy:
    """How long to go on.

    Attributes:
        retries: Further attempts after the first counted one.
        patience: Seconds that one request may take in all, waits included; a server that dies and is started again
            must be back within it.
        longest_wait: Seconds between two attempts at most, except where the server asks for more.
    """

    retries: int = 5
    patience: float = 900.0
    longest_wait: float = 15.0


async def persist(
    attempt: Callable[[], Awaitable[Result]],
    policy: Policy,
    on_failure: Callable[[Failure], None] = lambda failure: None,
) -> Result:
    """Calls `attempt` until it returns, with exponential backoff and jitter, within the bounds of `policy`.

    Raises:
        Failure: The last one, once nothing more is to be tried.
    """
    import tenacity

    jitter = tenacity.wait_random_exponential(multiplier=0.25, max=policy.longest_wait)
    counted = 0

    async def once() -> Result:
        # tenacity awaits only what it recognises as a coroutine function; a lambda that returns one is not.
        return await attempt()

    def stop(state: tenacity.RetryCallState) -> bool:
        failure = _failure(state)
        nonlocal counted
        counted += failure.counted
        on_failure(failure)
        # The next wait must fit as well: a server that asks for an hour gets no hour.
        return counted > policy.retries or (state.seconds_since_start or 0.0) + (failure.wait or 0.0) >= policy.patience

    def wait(state: tenacity.RetryCallState) -> float:
        asked = _failure(state).wait
        return jitter(state) if asked is None else asked + jitter(state) * 0.1

    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, Failure) and error.retry),
        stop=stop,
        wait=wait,
        reraise=True,
    )
    return await retrying(once)


def _failure(state: Any) -> Failure:
    error = state.outcome.exception()
    assert isinstance(error, Failure)  # noqa: S101 - retry_if_exception lets nothing else through
    return error


def from_status(status: int, body: bytes, retry_after: str | None) -> Failure:
    """The failure behind an HTTP answer that is no success."""
    message = f"HTTP {status}: {_message(body)}"
    if status in WAITS:
        return Failure(message, retry=True, counted=False, wait=seconds(retry_after), status=status)
    return Failure(message, retry=status >= 500, status=status)


def from_transport(error: BaseException) -> Failure:
    """The failure behind an exception of httpx, or of the httpx2 that newer openai packages bring along."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    # A refused connection says nothing about the request; a server that drops it half-way may have died of it.
    away = bool(kinds & {"ConnectError", "ConnectTimeout", "PoolTimeout"})
    retry = bool(kinds & {"TransportError", "DecodingError"}) and "UnsupportedProtocol" not in kinds
    return Failure(message, retry=retry, counted=not away, reached=False)


def parse(body: bytes) -> Any:
    """JSON of a successful answer.

    Raises:
        Failure: It is cut short or not UTF-8; worth another try.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Failure(f"the answer is not JSON: {body[:80].decode('utf-8', 'replace')!r}", retry=True) from None


async def called(method: Callable[..., Awaitable[Any]], **arguments: Any) -> Any:
    """The parsed JSON that a `with_raw_response` method of the openai package answers.

    Raises:
        Failure: Whatever went wrong.
    """
    import openai

    try:
        response = await method(**arguments)
    except openai.APIStatusError as error:
        raw = error.response
        raise from_status(error.status_code, raw.content, raw.headers.get("retry-after")) from None
    except openai.APIConnectionError as error:
        raise from_transport(error.__cause__ or error) from None
    except openai.OpenAIError as error:
        raise Failure(str(error), retry=False) from None
    return parse(response.http_response.content)


def wrong_shape(what: str) -> Failure:
    """The answer is JSON but not what was asked for; counted, since it may well stay so."""
    return Failure(f"unexpected answer: {what}", retry=True)


def seconds(retry_after: str | None) -> float | None:
    """Seconds in a Retry-After header, which holds a number or a date (RFC 9110, 10.2.3)."""
    if retry_after is None:
        return None
    try:
        value = float(retry_after)
    except ValueError:
        try:
            value = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(0.0, value) if value < float("inf") else None


def _message(body: bytes) -> str:
    """The message in an error body: OpenAI's and SGLang's `{"error": {"message": …}}`, FastAPI's `detail`, or all."""
    text = body[: 20 * LINE].decode("utf-8", "replace")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return text
    for key in ("error", "message", "detail"):
        if isinstance(value, dict) and value.get(key):
            value = value[key]
    return value if isinstance(value, str) else text
