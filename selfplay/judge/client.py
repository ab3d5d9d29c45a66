"""One judge: a model behind an OpenAI-compatible chat interface, asked one question at a time.

What servers take differs (structured output, the name of the token limit, a temperature), so the first request finds
out. Knows nothing of files.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from selfplay.engines import retry
from selfplay.engines.circuit import Circuit
from selfplay.engines.endpoints import LOOPBACK, host_of, without_secrets
from selfplay.engines.retry import OWN_FAULT, Failure, Policy
from selfplay.errors import EngineError, UsageError
from selfplay.judge.budget import Budget, Price, most_tokens
from selfplay.judge.cache import Entry
from selfplay.judge.fence import FenceError, enclose
from selfplay.judge.forms import FORMATS, Form
from selfplay.judge.verdict import invalid, read_choice

RETRIES = 4
"""Further attempts at one turn where the request itself may be at fault."""
PATIENCE = 300.0
"""Seconds one turn may wait in all for a server that is away or limits the rate."""

FIRST_CONTACT = 5.0
"""Seconds after which a server that never answered is given up: a typo in the URL should show at once."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the server takes: the kind of structured output, the token limit's name, temperature 0 or its own."""

    format: str = "json_schema"
    limit: str = "max_tokens"
    temperature: bool = True

    def next(self, refusal: str) -> Dialect | None:
        """What to try after a refusal: what its message names, else the next format."""
        if self.limit in refusal and self.limit == "max_tokens":
            return replace(self, limit="max_completion_tokens")
        if "temperature" in refusal and self.temperature:
            return replace(self, temperature=False)
        following = FORMATS.index(self.format) + 1
        return replace(self, format=FORMATS[following]) if following < len(FORMATS) else None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one question.

    Attributes:
        entry: The verdict and its tokens, valid or not.
        final: Whether it is the judge's answer, to be kept; False where the server gave none.
    """

    entry: Entry
    final: bool = True


class Judge:
    """A model that judges.

    Args:
        base_url: Up to and including `/v1`; OPENAI_BASE_URL, else OpenAI's own, if None.
        api_key: OPENAI_API_KEY if None; local servers need none.
        timeout: Seconds without a byte from the server before an attempt is given up.

    Raises:
        UsageError: The base URL is none.
    """

    def __init__(
        self,
        model: str,
        budget: Budget,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        price: Price | None = None,
        max_tokens: int = 1024,
        timeout: float = 120.0,
    ) -> None:
        import openai

        url = base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        host = host_of(url)
        if host is None:
            raise UsageError(f"--base-url {url!r}: give something like http://127.0.0.1:8000/v1")
        self.model = model
        self.host = address(url)
        self.notes: list[str] = []
        self.requests = 0
        self.priced = price is not None and price != Price()
        self._budget = budget
        self._price = price or Price()
        self._max_tokens = max_tokens
        self._policy = Policy(retries=RETRIES, patience=PATIENCE)
        self._shown = without_secrets(url)
        self._circuit = Circuit(self._shown)
        self._dialect = Dialect()
        self._found = False
        self._reached = False
        self._finding = asyncio.Lock()
        self._client = openai.AsyncOpenAI(
            base_url=url,
            api_key=api_key or os.environ.get("OPENAI_API_KEY") or "none",
            timeout=timeout,
            max_retries=0,  # ours know when a server is away, and book each attempt
            http_client=openai.DefaultAsyncHttpxClient(trust_env=host not in LOOPBACK),
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def ask(self, form: Form, data: Mapping[str, Any]) -> Reply:
        """The verdict on the conversation and turns in `data`, as `form` asks for it.

        Raises:
            EngineError: The server is away, refuses the key or has no such model.
            BudgetSpent: The request might exceed the limit.
        """
        try:
            fenced = enclose(data, form.head, form.tail)
        except FenceError as error:
            return Reply(Entry(invalid(f"not sent: {error}"), None, None), final=False)
        try:
            answer = await self._ask(form, fenced.text)
        except Failure as failure:
            if not (self._reached or failure.reached):
                raise EngineError(f"{self._shown} cannot be reached: {failure}; check --base-url") from None
            if failure.status in (401, 403):
                raise EngineError(f"{self._shown} refuses the API key: {failure}") from None
            if failure.status in (404, 405):
                raise EngineError(f"{self._shown} has no model {self.model!r}, or no chat: {failure}") from None
            self._circuit.site_failed(failure)
            what = "refused by the server" if failure.status in OWN_FAULT else "no answer"
            return Reply(Entry(invalid(what, str(failure)), None, None), final=False)
        self._circuit.site_done()
        choices = answer.get("choices") if isinstance(answer, dict) else None
        verdict = (
            read_choice(choices[0], fenced.check, form.read)
            if isinstance(choices, list) and choices
            else invalid("no choices in the answer", str(answer))
        )
        return Reply(Entry(verdict, *usage(answer)))

    async def _ask(self, form: Form, text: str) -> Any:
        """The answer, in the dialect that the server takes; found out by whoever asks first.

        Raises:
            Failure: After everything that may be tried.
        """
        if not self._found:
            async with self._finding:
                if not self._found:
                    return await self._find(form, text)
        return await self._post(form, text, self._dialect)

    async def _find(self, form: Form, text: str) -> Any:
        dialect: Dialect | None = self._dialect
        first: Failure | None = None
        while dialect is not None:
            try:
                answer = await self._post(form, text, dialect)
            except Failure as failure:
                if failure.status not in (400, 422):
                    raise
                first = first or failure
                dialect = dialect.next(str(failure))
                continue
            self._dialect, self._found = dialect, True
            if first is not None:
                told = [dialect.format, dialect.limit] + ([] if dialect.temperature else ["its own temperature"])
                self.notes.append(f"{self.model}: the server refused a parameter ({first}); using {', '.join(told)}")
            return answer
        raise first or Failure("no dialect", retry=False)

    async def _post(self, form: Form, text: str, dialect: Dialect) -> Any:
        body: dict[str, Any] = {dialect.limit: self._max_tokens}
        if dialect.temperature:
            body["temperature"] = 0
        wanted = form.formats()[dialect.format]
        if wanted is not None:
            body["response_format"] = wanted
        messages = [{"role": "system", "content": form.system}, {"role": "user", "content": text}]
        most = self._price.of(sum(most_tokens(part["content"]) for part in messages), self._max_tokens)

        create: Any = self._client.chat.completions.with_raw_response.create
        began = time.monotonic()

        async def attempt() -> Any:
            await self._budget.book(most)
            cost: float | None = None
            try:
                self.requests += 1
                answer = await retry.called(create, model=self.model, messages=messages, extra_body=body)
                self._reached = True
                tokens = usage(answer)
                self._budget.count(*tokens)
                if tokens[0] is not None and tokens[1] is not None:
                    cost = self._price.of(tokens[0], tokens[1])
                return answer
            except Failure as failure:
                self._reached = self._reached or failure.reached
                if failure.status is not None or (not failure.reached and failure.away):
                    cost = 0.0  # an error is not charged; an answer lost on its way may be
                if not self._reached and time.monotonic() - began > FIRST_CONTACT:
                    raise Failure(str(failure), retry=False, reached=False) from None
                raise
            finally:
                await self._budget.settle(most, cost)

        return await self._circuit.request(lambda: retry.persist(attempt, self._policy))


def usage(answer: Any) -> tuple[int | None, int | None]:
    """Tokens in and out as the server counted them; None where it did not."""
    counted = answer.get("usage") if isinstance(answer, dict) else None
    counted = counted if isinstance(counted, dict) else {}
    numbers = (counted.get("prompt_tokens"), counted.get("completion_tokens"))
    found = [n if isinstance(n, int) and not isinstance(n, bool) and n >= 0 else None for n in numbers]
    return found[0], found[1]


def address(url: str) -> str:
    """Host and port of a URL: what tells one judge from another of the same name."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or {'https': 443}.get(parts.scheme, 80)}"
