"""Tells one request that failed from an engine that is broken, so that a dead server costs minutes and not the night.

Knows when things succeeded and how many failed; knows nothing of what was asked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from selfplay.engines.retry import OWN_FAULT, Failure
from selfplay.errors import EngineError

Result = TypeVar("Result")

STRIKES = 20
"""Sites that may fail one after another, none succeeding in between, before the engine is taken for broken."""


class Circuit:
    """Opens, by raising EngineError, when it makes no sense to go on.

    Args:
        name: How messages call the server.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._last_success = -math.inf
        self._strikes = 0

    async def request(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """Passes a request's result or failure on.

        Raises:
            EngineError: The server was away for the request's patience, and for everybody else's as well.
        """
        began = time.monotonic()
        try:
            result = await call()
        except Failure as failure:
            # Successes of the first half may stem from before the server went away.
            if failure.away and self._last_success < (began + time.monotonic()) / 2:
                raise EngineError(f"{self._name} stays away: {failure}; start it and run the same again") from None
            raise
        self._last_success = time.monotonic()
        return result

    def site_done(self) -> None:
        """A site got all its candidates."""
        self._strikes = 0

    def site_failed(self, failure: Failure) -> None:
        """A site failed for good.

        Raises:
            EngineError: `STRIKES` in a row did, and not for faults of their own such as a context too long.
        """
        if failure.status in OWN_FAULT:
            return
        self._strikes += 1
        if self._strikes >= STRIKES:
            raise EngineError(f"{self._name}: {STRIKES} sites in a row failed, the last with: {failure}")
