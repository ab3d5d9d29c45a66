"""An event loop on a thread of its own, so that engines can be asynchronous inside and plain generators outside."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import queue
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

from selfplay.engines.base import SampleRequest, SampleResult

Result = TypeVar("Result")
Release = Callable[[int], None]
Work = Callable[[SampleRequest, Release], Coroutine[Any, Any, SampleResult]]


class BackgroundLoop:
    """Runs coroutines for threads that are not asynchronous themselves."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="selfplay-engine", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, Result]) -> concurrent.futures.Future[Result]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Waits for `work`; an interrupt while waiting cancels it."""
        future = self.submit(work)
        try:
            return future.result()
        finally:
            future.cancel()

    def close(self) -> None:
        """Cancels what still runs and stops the thread. Safe to call twice."""
        if self.loop.is_closed():
            return
        with contextlib.suppress(TimeoutError):
            self.submit(_cancel_others()).result(timeout=10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
        if not self._thread.is_alive():
            self.loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def together(works: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """All results, in order. The first failure is raised, and what still runs then is cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def drive(
    background: BackgroundLoop, requests: Iterable[SampleRequest], work: Work, max_draws: int
) -> Iterator[SampleResult]:
    """Yields results as they are done, pulling requests only while fewer than `max_draws` draws are in flight.

    `requests` is pulled in the caller's thread and only when the caller asks for a result, so a slow consumer slows
    the sampling down and a generator over a file needs no lock. Leaving early cancels what is in flight.

    Args:
        work: Turns one request into its result. It may call `release(k)` as k of the draws are done, so that the next
            site can begin before the last draw of this one is finished. What it raises is raised here.
    """
    inbox: queue.SimpleQueue[int | SampleResult | BaseException] = queue.SimpleQueue()
    flying: set[concurrent.futures.Future[None]] = set()
    source = iter(requests)
    exhausted = False
    sites = draws = 0

    async def deliver(request: SampleRequest) -> None:
        left = len(request.draws)

        def release(count: int) -> None:
            nonlocal left
            left -= count
            inbox.put(count)

        outcome: SampleResult | BaseException
        try:
            outcome = await work(request, release)
        except BaseException as error:
            outcome = error
        inbox.put(left)
        inbox.put(outcome)

    try:
        while True:
            while not exhausted and (sites == 0 or draws < max_draws) and inbox.empty():
                request = next(source, None)
                if request is None:
                    exhausted = True
                    break
                sites += 1
                draws += len(request.draws)
                future = background.submit(deliver(request))
                flying.add(future)
                future.add_done_callback(flying.discard)
            if sites == 0:
                return
            message = inbox.get()
            if isinstance(message, int):
                draws -= message
            elif isinstance(message, SampleResult):
                sites -= 1
                yield message
            else:
                raise message
    finally:
        for future in list(flying):
            future.cancel()
