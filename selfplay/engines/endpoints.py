"""Several servers with one model behind them: who gets which request, who is down, who is asked again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from selfplay.engines import retry
from selfplay.engines.retry import Failure, Policy
from selfplay.errors import EngineError, UsageError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 - a name to recognise, not to bind
DOWN_FOR = 5.0
"""Seconds for which a server that did not answer is passed over, where there is another."""

FIRST_CONTACT = Policy(retries=2, patience=5.0, longest_wait=2.0)
"""Short, since a typo in the URL should show at once; a server that is about to start is for `launch` to wait for."""


class Transport(Protocol):
    """How requests in SGLang's native format reach the model: over HTTP, or in process."""

    async def generate(self, payload: dict[str, Any], affinity: str) -> Any:
        """The answer to one `/generate` request; those with equal `affinity` share a prefix cache.

        Raises:
            Failure: After everything the transport may try.
        """
        ...

    async def everywhere(self, payload: dict[str, Any]) -> list[Any]:
        """The answers of every copy of the model that can be reached."""
        ...

    async def info(self) -> list[dict[str, Any]]:
        """What each reachable copy says of itself.

        Raises:
            EngineError: None can be reached.
        """
        ...

    async def aclose(self) -> None: ...


class Endpoint:
    """One base URL with its own connection pool."""

    def __init__(self, url: str, *, timeout: float, connections: int, api_key: str | None) -> None:
        import httpx

        host = host_of(url)
        if host is None:
            raise UsageError(f"{url!r} is no base URL: give something like http://127.0.0.1:30000")
        self.url = url.rstrip("/")
        self.down_until = 0.0
        self.client = httpx.AsyncClient(
            base_url=self.url,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0), pool=None),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            # A proxy set for the outside world must not take the requests to this machine.
            trust_env=host not in LOOPBACK,
        )

    async def call(self, method: str, path: str, payload: Any = None) -> Any:
        """One attempt; the parsed JSON.

        Raises:
            Failure: Whatever went wrong.
        """
        import httpx

        try:
            response = await self.client.request(method, path, json=payload)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise retry.from_transport(error) from None
        if not response.is_success:
            raise retry.from_status(response.status_code, response.content, response.headers.get("retry-after"))
        return retry.parse(response.content)


class HttpTransport:
    """`/generate` on one or several base URLs, with retries and failover."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        policy: Policy,
        timeout: float,
        connections: int,
        api_key: str | None = None,
        on_away: Callable[[], None] = lambda: None,
    ) -> None:
        if not urls:
            raise UsageError("the sglang engine needs a base URL, such as --base-url http://127.0.0.1:30000")
        self.endpoints = [Endpoint(u, timeout=timeout, connections=connections, api_key=api_key) for u in urls]
        self._policy = policy
        self._on_away = on_away

    def choose(self, affinity: str) -> Endpoint:
        """The endpoint for `affinity`: always the same while it is up, and if not, always the same other one.

        Rendezvous hashing (Thaler & Ravishankar 1998): only the keys of a server that is down move.
        """
        ranked = sorted(
            self.endpoints, key=lambda e: hashlib.sha256(f"{e.url} {affinity}".encode(errors="replace")).digest()
        )
        now = time.monotonic()
        return next((e for e in ranked if e.down_until <= now), ranked[0])

    async def generate(self, payload: dict[str, Any], affinity: str) -> Any:
        chosen = self.endpoints[0]

        async def attempt() -> Any:
            nonlocal chosen
            chosen = self.choose(affinity)
            answer = await chosen.call("POST", "/generate", payload)
            _refuse_aborted(answer)
            return answer

        def note(failure: Failure) -> None:
            if failure.away or not failure.reached:
                chosen.down_until = time.monotonic() + DOWN_FOR
                self._on_away()

        return await retry.persist(attempt, self._policy, note)

    async def everywhere(self, payload: dict[str, Any]) -> list[Any]:
        answers = []
        for endpoint in self.endpoints:
            try:
                answers.append(await endpoint.call("POST", "/generate", payload))
            except Failure:
                continue
        return answers

    async def info(self) -> list[dict[str, Any]]:
        found, failures = [], []
        for endpoint in self.endpoints:
            try:
                found.append({"url": without_secrets(endpoint.url), **await self._describe(endpoint)})
            except Failure as failure:
                endpoint.down_until = time.monotonic() + DOWN_FOR
                failures.append(f"{without_secrets(endpoint.url)}: {failure}")
        if not found:
            raise EngineError(
                f"no SGLang server answers ({'; '.join(failures)}); check the URL, or start one with "
                "`python -m sglang.launch_server --model-path MODEL`, or let --launch do it"
            )
        return found

    async def _describe(self, endpoint: Endpoint) -> dict[str, Any]:
        failure: Failure | None = None
        for path in ("/server_info", "/get_server_info", "/get_model_info"):
            try:
                info = await retry.persist(lambda path=path: endpoint.call("GET", path), FIRST_CONTACT)  # type: ignore[misc]
            except Failure as error:
                failure = error
                if error.status != 404:
                    raise
                continue
            if isinstance(info, dict):
                return info
            failure = retry.wrong_shape(f"{path} is no object")
        if failure is not None and failure.status == 404:
            failure = Failure("answers, but has no /server_info; for other servers use --engine openai", retry=False)
        raise failure or retry.wrong_shape("no server info")

    async def aclose(self) -> None:
        for endpoint in self.endpoints:
            await endpoint.client.aclose()


def host_of(url: str) -> str | None:
    """The host of an HTTP base URL, or None where it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname if parts.scheme in {"http", "https"} else None


def without_secrets(url: str) -> str:
    """The URL without a user and password it may hold."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _refuse_aborted(answer: Any) -> None:
    """SGLang answers 200 with finish_reason `abort` when it shuts down or runs out of memory."""
    for item in answer if isinstance(answer, list) else [answer]:
        meta = item.get("meta_info") if isinstance(item, dict) else None
        reason = meta.get("finish_reason") if isinstance(meta, dict) else None
        if isinstance(reason, dict) and reason.get("type") == "abort":
            raise Failure(f"aborted by the server: {reason.get('message', '')}", retry=True)
