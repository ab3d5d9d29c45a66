"""An engine without a model, for faults and orders that a real one can't be made to show."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from selfplay.core import Candidate, Draw, Sampling
from selfplay.engines.base import SampleRequest, SampleResult, ScoreRequest


class ScriptedEngine:
    """Answers with text made of key, draw and the keys it was batched with.

    Args:
        group: As in the protocol; the turn names the whole batch, so that another batch shows.
        script: Called with each key before it is answered; may raise, or return an error line.
    """

    name = "scripted"
    primed = False
    seeded = True
    context_length: int | None = None

    def __init__(self, group: int = 1, script: Callable[[str], str | None] = lambda key: None) -> None:
        self.group = group
        self.script = script
        self.asked: list[str] = []

    def describe(self) -> dict[str, Any]:
        return {"engine": self.name}

    def sample(self, requests: Iterable[SampleRequest], sampling: Sampling) -> Iterator[SampleResult]:
        iterator = iter(requests)
        while batch := list(itertools.islice(iterator, self.group)):
            keys = "+".join(request.key for request in batch)
            for request in batch:
                self.asked.append(request.key)
                error = self.script(request.key)
                drawn = tuple(self.candidate(request, draw, keys) for draw in request.draws)
                yield SampleResult(request.key, error=error) if error else SampleResult(request.key, drawn)

    def candidate(self, request: SampleRequest, draw: Draw, batch: str) -> Candidate:
        turn = f"turn {draw.sample} at {draw.temperature:g} of {batch}, seed {draw.seed}"
        return Candidate(draw, turn, (1, 2), (-0.5, -0.25), "stop", 3, 7 if draw.sample else 0, True)

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[list[float]]]:
        return [[[-1.0] * len(c) for c in request.continuations] for request in requests]

    def close(self) -> None:
        pass
