"""Judges batches in several processes; each writes its own part, so that what is finished is on disk.

Imports nothing heavy: a worker sets its environment first.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfplay.errors import SelfplayError
from selfplay.interrupt import Interrupt

if TYPE_CHECKING:
    from selfplay.cleaning.turns import How, Messages

Batch = tuple[int, Sequence["Messages"]]
"""The number of a part, and its conversations."""
_THREADS = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")

_kept = ExitStack()
_work: Callable[[int, Any], int]


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def judge_all(
    folder: Path,
    how: How,
    batches: Iterator[Batch],
    workers: int,
    interrupt: Interrupt,
    told: Callable[[int, int], None],
) -> None:
    """Judges the batches and writes a part of each; after an interrupt only those under way.

    The order in which parts appear is any, what is in them does not depend on `workers`. At most two batches a worker
    are held in memory.

    Args:
        told: Called with conversations and turns of each part written.

    Raises:
        SelfplayError: From judging or writing; or a worker died. Parts that were written stay.
    """
    first = next(batches, None)
    second = next(batches, None) if first and workers > 1 and not how.tiers else None
    every = (batch for known in ([first, second], batches) for batch in known if batch)
    if second is None:
        with worker(folder, how) as work:
            for number, conversations in every:
                told(len(conversations), work(number, conversations))
                if interrupt.asked:
                    return
        return
    with ExitStack() as stack:
        pool = stack.enter_context(_pool(folder, how, workers))
        under_way: dict[Future[int], int] = {}
        try:
            for number, conversations in every:
                with _not_for_children():
                    under_way[pool.submit(_do, number, conversations)] = len(conversations)
                while len(under_way) >= 2 * workers:
                    _collect(under_way, told)
                if interrupt.asked:
                    break
            while under_way:
                _collect(under_way, told)
        except BrokenProcessPool:
            raise SelfplayError(
                "a worker process died, perhaps for want of memory; the same command goes on, try --workers 1"
            ) from None


def _collect(under_way: dict[Future[int], int], told: Callable[[int, int], None]) -> None:
    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
        told(under_way.pop(future), future.result())


@contextmanager
def _pool(folder: Path, how: How, workers: int) -> Iterator[ProcessPoolExecutor]:
    # Spawned, since a fork of a process that runs polars' threads may hang.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (folder, how))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def _not_for_children() -> Iterator[None]:
    """Processes started meanwhile never see Ctrl-C, which goes to the whole group; we see it a moment later."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def worker(folder: Path, how: How) -> Iterator[Callable[[int, Sequence[Messages]], int]]:
    """What judges a batch, writes its part and tells how many turns that were."""
    from selfplay.cleaning.folder import write_part
    from selfplay.cleaning.turns import opened

    with opened(how) as judge:

        def work(number: int, conversations: Sequence[Messages]) -> int:
            tables = judge(conversations)
            write_part(folder, number, tables)
            return len(tables[1])

        yield work


def _begin(folder: Path, how: How) -> None:
    """In a new process."""
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in _THREADS:
        os.environ.setdefault(name, "1")
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _work = _kept.enter_context(worker(folder, how))


def _leave_with_parent() -> None:
    """A parent that was killed leaves nobody behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _do(number: int, conversations: Sequence[Messages]) -> int:
    return _work(number, conversations)
