"""Tokens and what they cost; a limit that is not exceeded, since every request books its upper bound beforehand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from selfplay.errors import SelfplayError

PER_MILLION = 1e-6
TEMPLATE_TOKENS = 64
"""What a server's chat template may add to a request."""


class BudgetSpent(SelfplayError):
    """The next request might exceed `--max-cost`."""

    exit_code = 4


@dataclass(frozen=True, slots=True)
class Price:
    """Of a million tokens, in one currency; None where no price was given."""

    tokens_in: float | None = None
    tokens_out: float | None = None

    def of(self, tokens_in: int, tokens_out: int) -> float:
        """What a request costs."""
        return (tokens_in * (self.tokens_in or 0.0) + tokens_out * (self.tokens_out or 0.0)) * PER_MILLION


def most_tokens(text: str) -> int:
    """An upper bound of the tokens in a text: byte-level and byte-fallback vocabularies need at most one a byte."""
    return len(text.encode("utf-8", "replace")) + TEMPLATE_TOKENS


class Budget:
    """What has been spent in this call. Used from one event loop.

    Attributes:
        limit: `--max-cost`; None for no limit.
        spent: Cost of what was answered, at upper bounds where the server gave no usage or was lost half-way.
        unknown: Requests that were booked at their upper bound for good.
    """

    def __init__(self, limit: float | None = None) -> None:
        self.limit = limit
        self.spent = 0.0
        self.tokens_in = 0
        self.tokens_out = 0
        self.unknown = 0
        self._booked = 0.0
        self._in_flight = 0
        self._settled = asyncio.Condition()

    async def book(self, most: float) -> None:
        """Books a request's upper bound, waiting for others to be settled where it does not fit beside them.

        Raises:
            BudgetSpent: It would not fit if all others were settled.
        """
        async with self._settled:
            while self.limit is not None and self.spent + self._booked + most > self.limit:
                if not self._in_flight:
                    raise BudgetSpent(f"--max-cost {self.limit:g} is reached: {self.spent:.6g} is spent")
                await self._settled.wait()
            self._booked += most
            self._in_flight += 1

    async def settle(self, most: float, cost: float | None) -> None:
        """Replaces a booking by what the request cost; None where nobody knows, and the booking stands."""
        async with self._settled:
            self._booked -= most
            self._in_flight -= 1
            self.spent += most if cost is None else cost
            self.unknown += cost is None
            self._settled.notify_all()

    def count(self, tokens_in: int | None, tokens_out: int | None) -> None:
        """Counts tokens that a server reported."""
        self.tokens_in += tokens_in or 0
        self.tokens_out += tokens_out or 0
