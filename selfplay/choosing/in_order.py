"""Chooses among the candidates of a whole run, where what was chosen at one site counts at the next."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import polars as pl

from rerank.diversity import Worn
from selfplay.choosing.selection import Choice, Encode, bar, choices, take, tell
from selfplay.config import SelectConfig
from selfplay.runs import Run

READ = ("ordinal", "turn", "genuine", "p_genuine", "copy", "groundedness", "rank", "finish_reason")
"""What choosing needs of a part."""


def choose_in_order(run: Run, config: SelectConfig, encode: Encode | None) -> None:
    """Chooses anew in all finished parts of a run, site after site in reading order, and rewrites those that change.

    The outcome depends on the candidates alone, not on how they are spread over parts, so a run that was killed chooses
    as one that was not. Only parts that overlap in reading order are in memory at once.
    """
    worn = Worn()
    chosen: dict[int, list[int]] = {}
    for number, site in _in_order(run, config, encode):
        if site is not None:
            chosen.setdefault(number, []).extend(take(site, config.select, config.diversity, worn))
            continue
        before = run.read("turns", number)
        rows = pl.int_range(pl.len()).is_in(sorted(chosen.pop(number, [])))
        barred = bar(before, config.min_groundedness, config.allow_truncated)
        after = tell(barred.with_columns(selected=rows), config.select).select(before.columns)
        if not after.equals(before):
            run.write("turns", number, after)


def _in_order(run: Run, config: SelectConfig, encode: Encode | None) -> Iterator[tuple[int, Choice | None]]:
    """Numbers of parts with their sites in reading order, and with None once a part has no more."""
    waiting = sorted(((least, number) for number, least in run.first("turns").items()), reverse=True)
    heap: list[tuple[int, int, Choice, Iterator[Choice]]] = []

    def advance(number: int, rest: Iterator[Choice]) -> bool:
        site = next(rest, None)
        if site is not None:
            heapq.heappush(heap, (site.order, number, site, rest))
        return site is not None

    while waiting or heap:
        if waiting and (not heap or waiting[-1][0] <= heap[0][0]):
            number = waiting.pop()[1]
            part = run.read("turns", number, list(READ))
            table = bar(part, config.min_groundedness, config.allow_truncated)
            if not advance(number, iter(choices(table, config.select, config.diversity, encode))):
                yield number, None
            continue
        _, number, site, rest = heapq.heappop(heap)
        yield number, site
        if not advance(number, rest):
            yield number, None
