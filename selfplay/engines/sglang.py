"""SGLang over its native `/generate`, by token ids, scheduled for its prefix cache.

The schedule is ours, since `n > 1` in one request primes its prompts one after another: every site first sends a
primer that only fills the cache with its prompt, then its draws as single requests that find it there. Primers of
different conversations run side by side; within a conversation one waits for the other, as each prompt begins with
the one before. Knows nothing of HTTP or processes: a `Transport` carries the requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, takewhile
from typing import Any

from selfplay.core import Candidate, Draw, Prompt, Sampling
from selfplay.engines import sglang_answers as answers
from selfplay.engines.background import BackgroundLoop, Release, drive, together
from selfplay.engines.base import CacheUse, SampleRequest, SampleResult, ScoreRequest
from selfplay.engines.circuit import Circuit
from selfplay.engines.endpoints import HttpTransport, Transport
from selfplay.engines.logprob_scale import TOP, unscaled
from selfplay.engines.retry import Failure, Policy
from selfplay.engines.sglang_server import Server
from selfplay.errors import EngineError

DESCRIBED = frozenset(
    {
        *("url", "version", "model_path", "revision", "dtype", "kv_cache_dtype", "quantization", "random_seed"),
        *("attention_backend", "sampling_backend", "enable_deterministic_inference", "device", "tp_size", "dp_size"),
        *("context_length", "max_total_tokens", "max_running_requests", "max_req_input_len", "chunked_prefill_size"),
        *("page_size", "schedule_policy", "disable_radix_cache"),
    }
)
"""What `describe` keeps of the several hundred settings a server tells."""


class SglangEngine:
    """SGLang servers by URL; several URLs, or an sglang-router in front, serve one model.

    Args:
        base_urls: E.g. `["http://127.0.0.1:30000"]`. All draws of a conversation go to one of them while it is up.
        max_in_flight: Requests in flight at once, per URL.
        timeout: Seconds without a byte from the server before an attempt is given up.
        retries: Further attempts where a request itself may be at fault (a dropped connection, 500, broken JSON).
        patience: Seconds one request may wait in all for a server that is away or asks to wait.
        api_key: Sent as a bearer token.

    Raises:
        EngineError: No server can be reached.
        UsageError: A URL is none.
    """

    name = "sglang"
    group = 1
    primed = False

    def __init__(
        self,
        base_urls: Sequence[str] = (),
        *,
        max_in_flight: int = 256,
        timeout: float = 600.0,
        retries: int = 5,
        patience: float = 900.0,
        api_key: str | None = None,
        server: Server | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._server = server
        self._copies = max(1, len(base_urls))
        self._max_in_flight = max_in_flight
        self._background = BackgroundLoop()
        self._transport: Transport | None = None
        self._closed = False
        try:
            self._transport = transport or HttpTransport(
                base_urls,
                policy=Policy(retries=retries, patience=patience),
                timeout=timeout,
                connections=max_in_flight,
                api_key=api_key,
                on_away=server.revive if server else lambda: None,
            )
            self._info = self._background.run(self._transport.info())
        except BaseException:
            self.close()
            raise
        self.seeded = all(info.get("enable_deterministic_inference") is True for info in self._info)
        lengths = [
            length for info in self._info for length in (info.get("context_length"), info.get("max_total_tokens"))
        ]
        self.context_length = min((length for length in lengths if isinstance(length, int)), default=None)
        self.scored = CacheUse()
        self._unscaled: bool | None = None
        self._probing = asyncio.Lock()
        self._primers: dict[str, asyncio.Task[int]] = {}
        self._circuit = Circuit("SGLang")

    @classmethod
    def launch(cls, model: str, *, max_in_flight: int = 256, timeout: float = 600.0, **server: Any) -> SglangEngine:
        """Starts a server of our own (`sglang_server.launch` names the options) and stops it on `close`."""
        from selfplay.engines.sglang_server import launch

        started = launch(model, **server)
        try:
            return cls([started.url], max_in_flight=max_in_flight, timeout=timeout, server=started)
        except BaseException:
            started.close()
            raise

    @classmethod
    def in_process(cls, model: str, *, max_in_flight: int = 256, **engine: Any) -> SglangEngine:
        """`sglang.Engine` inside this process; needs the sglang package in this environment.

        Call it under `if __name__ == "__main__":`, since SGLang spawns its workers by importing the main module.
        """
        from selfplay.engines.sglang_local import LocalTransport

        return cls(max_in_flight=max_in_flight, transport=LocalTransport(model, **engine))

    def describe(self) -> dict[str, Any]:
        """Model, version and settings of each server, and whether logprobs are of temperature 1 everywhere."""
        servers = [{key: info[key] for key in sorted(DESCRIBED) if info.get(key) is not None} for info in self._info]
        return {"engine": self.name, "seeded": self.seeded, "max_in_flight": self._max_in_flight, "servers": servers}

    def sample(self, requests: Iterable[SampleRequest], sampling: Sampling) -> Iterator[SampleResult]:
        """See `base.Engine.sample`."""

        async def work(request: SampleRequest, release: Release) -> SampleResult:
            return await self._site(request, sampling, release)

        yield from drive(self._background, requests, work, self._max_in_flight * self._copies)

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[list[float]]]:
        """See `base.Engine.score`. A prefix needs at least one token, since the first token of all has no logprob.

        A prefix waits until the one before it in order is in the cache, where it begins as that one does: side by side
        both would compute what they share. `scored` counts what the cache held.
        """
        if any(not request.prefix for request in requests):
            raise ValueError("score: a prefix needs at least one token")

        async def all_of_them() -> list[list[list[float]]]:
            room = asyncio.Semaphore(max(1, self._max_in_flight * self._copies // 8))

            held = [asyncio.Event() for _ in requests]
            waits = _waits(requests)

            async def one(number: int) -> list[list[float]]:
                try:
                    if (before := waits.get(number)) is not None:
                        await held[before].wait()
                    async with room:
                        return await self._score(requests[number], held[number])
                finally:
                    held[number].set()

            try:
                return await together(one(number) for number in range(len(requests)))
            except Failure as failure:
                raise EngineError(f"SGLang could not score: {failure}") from None

        return self._background.run(all_of_them())

    def flush_cache(self) -> None:
        """Empties the prefix cache of every server, for measurements."""
        transport = self._transport
        if isinstance(transport, HttpTransport):
            for endpoint in transport.endpoints:
                self._background.run(endpoint.client.post("/flush_cache"))

    def close(self) -> None:
        """Closes the connections and stops the server that this engine started. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._transport is not None:
                self._background.run(self._transport.aclose())
        finally:
            self._background.close()
            if self._server is not None:
                self._server.close()

    async def _generate(self, payload: dict[str, Any], affinity: str) -> Any:
        transport = self._transport
        assert transport is not None  # noqa: S101
        return await self._circuit.request(lambda: transport.generate(payload, affinity))

    async def _site(self, request: SampleRequest, sampling: Sampling, release: Release) -> SampleResult:
        """All draws of one site, the primer first."""
        affinity = conversation(request.key)
        try:
            cached = await self._primed(request.prompt, affinity) if len(request.draws) > 1 else None
            if any(draw.temperature not in (0.0, 1.0) for draw in request.draws):
                await self._probe_logprobs(request.prompt)

            async def one(draw: Draw) -> Candidate:
                candidate = await self._draw(request.prompt, draw, sampling, affinity)
                release(1)
                return candidate

            candidates = await together(one(draw) for draw in request.draws)
        except Failure as failure:
            self._circuit.site_failed(failure)
            return SampleResult(request.key, error=str(failure))
        self._circuit.site_done()
        if cached is not None:
            # The primer did the prefill that the first draw would have done; it is counted there, not hidden.
            candidates[0] = answers.with_cached(candidates[0], cached)
        return SampleResult(request.key, candidates=tuple(candidates))

    async def _primed(self, prompt: Prompt, affinity: str) -> int:
        """Fills the cache with `prompt`; tokens of it that were there before.

        A site waits for the primer of the site before it in the same conversation, whose prompt is its own beginning.
        """
        before = self._primers.get(affinity)

        async def primer() -> int:
            if before is not None:
                await asyncio.wait([before])
            return answers.cached_tokens(await self._generate(_prefill(prompt.token_ids), affinity))

        task = asyncio.ensure_future(primer())
        self._primers[affinity] = task
        try:
            return await task
        finally:
            task.cancel()
            if self._primers.get(affinity) is task:
                del self._primers[affinity]

    async def _draw(self, prompt: Prompt, draw: Draw, sampling: Sampling, affinity: str) -> Candidate:
        answer = await self._generate(self._payload(prompt, draw, sampling), affinity)
        honest = draw.temperature in (0.0, 1.0) or self._unscaled is True
        return answers.candidate(answer, prompt, draw, seeded=self.seeded, logprobs=honest)

    def _payload(self, prompt: Prompt, draw: Draw, sampling: Sampling) -> dict[str, Any]:
        params: dict[str, Any] = {
            "temperature": draw.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "min_p": sampling.min_p,
            "max_new_tokens": sampling.max_tokens,
            "stop": list(prompt.stop),
            "stop_token_ids": list(prompt.stop_token_ids),
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
        }
        if self.seeded:
            params["sampling_seed"] = draw.seed & (2**63 - 1)
        return {
            "input_ids": list(prompt.token_ids),
            "sampling_params": params,
            "return_logprob": True,
            # Only a stop string needs the tokens' texts: they tell where it began.
            "return_text_in_logprobs": bool(prompt.stop),
        }

    async def _probe_logprobs(self, prompt: Prompt) -> None:
        """Finds out once whether logprobs are of temperature 1 at other temperatures too (see `logprob_scale`)."""
        transport = self._transport
        assert transport is not None  # noqa: S101
        async with self._probing:
            if self._unscaled is not None:
                return
            gaps = []
            for temperature in (1.0, 0.5):
                payload = {"input_ids": list(prompt.token_ids), "return_logprob": True, "top_logprobs_num": TOP}
                payload["sampling_params"] = {"max_new_tokens": 1, "temperature": temperature}
                gaps.append([answers.top_gap(answer) for answer in await transport.everywhere(payload)])
            found = {unscaled(one, half) for one, half in zip(*gaps, strict=False)}
            if found and None not in found:
                self._unscaled = found == {True}

    async def _score(self, request: ScoreRequest, held: asyncio.Event) -> list[list[float]]:
        wanted = [continuation for continuation in request.continuations if continuation]
        if not wanted:
            return [[] for _ in request.continuations]
        affinity = str(request.prefix)
        missed = 0
        if len(wanted) > 1:
            # What the primer computes is the price of the first continuation; it is counted there, not hidden.
            primer = await self._generate(_prefill(request.prefix), affinity)
            missed = len(request.prefix) - answers.cached_tokens(primer)
            held.set()
        payload = {
            "input_ids": [[*request.prefix, *continuation] for continuation in wanted],
            "sampling_params": {"max_new_tokens": 0, "temperature": 1.0},
            "return_logprob": True,
            # One earlier than the first token wanted, since the token at the start itself has none.
            "logprob_start_len": len(request.prefix) - 1,
        }
        answer = await self._generate(payload, affinity)
        scored = answers.scores(answer, wanted)
        self.scored.tokens += sum(len(request.prefix) + len(continuation) for continuation in wanted)
        self.scored.cached += sum(map(answers.cached_tokens, answer)) - missed
        return [next(scored) if continuation else [] for continuation in request.continuations]


def conversation(key: str) -> str:
    """The conversation of a site id: what comes before its last `#`."""
    return key.rpartition("#")[0] or key


def _waits(requests: Sequence[ScoreRequest]) -> dict[int, int]:
    """For each request the one to wait for: the one before it in the order of prefixes, if half of it is the same."""
    order = sorted(range(len(requests)), key=lambda number: requests[number].prefix)
    found = {}
    for before, number in pairwise(order):
        one, other = requests[before].prefix, requests[number].prefix
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
        if 2 * same >= len(other):
            found[number] = before
    return found


def _prefill(token_ids: Sequence[int]) -> dict[str, Any]:
    return {"input_ids": list(token_ids), "sampling_params": {"max_new_tokens": 0, "temperature": 1.0}}
