"""From the options of `run` and `sample` to a finished folder: opens what is needed, runs the stages, sums up."""

from __future__ import annotations

import itertools
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import polars as pl

from selfplay import dataset, judging, pipeline, progress, summary
from selfplay.config import SampleConfig
from selfplay.conversations import read_conversations, sites
from selfplay.core import Sampling, Site
from selfplay.engines.base import Engine
from selfplay.engines.opening import EngineOptions, open_engine
from selfplay.errors import SelfplayError, UsageError
from selfplay.interrupt import Interrupt
from selfplay.quarantine import Quarantine
from selfplay.runs import Run
from selfplay.source import content_hash, readable
from selfplay.templates import ChatTemplate
from selfplay.tokenizer import load_tokenizer

DEFAULT_MODEL = "smollm2-135m"
PACKAGES = ("selfplay-turns", "polars", "rapidfuzz", "tokenizers", "torch", "transformers", "sentence-transformers")


@dataclass(frozen=True, slots=True)
class Job:
    """All options of a run, checked against each other."""

    conversations: str
    turns: str
    limit: int | None
    max_bad: str | None
    system: str
    tokenizer: str | None
    temperatures: Mapping[float, int]
    sampling: Sampling
    seed: int
    engine: EngineOptions
    judging: judging.Options | None


def from_options(values: Mapping[str, Any]) -> Job:
    """The job that a verb's options describe.

    Raises:
        UsageError: Options that do not fit together.
    """
    given = dict(values)
    engine = EngineOptions(**{f.name: given[f.name] for f in fields(EngineOptions)})
    if engine.model is None and not engine.base_urls:
        given["model"] = DEFAULT_MODEL
    temperatures: dict[float, int] = {}
    for temperature, count in given["temperatures"] or [(1.0, None)]:
        if temperature in temperatures:
            raise UsageError(f"--temperature {temperature:g} is given twice")
        # At T=0 every sample is the same text: one is enough unless a number is asked for.
        temperatures[temperature] = count or (1 if temperature == 0 else given["n"])
    return Job(
        engine=EngineOptions(**{f.name: given[f.name] for f in fields(EngineOptions)}),
        temperatures=temperatures,
        sampling=Sampling(**{f.name: given[f.name] for f in fields(Sampling)}),
        judging=judging.Options(**{f.name: given[f.name] for f in fields(judging.Options)}) if "rules" in given else None,
        **{name: given[name] for name in ("conversations", "turns", "limit", "max_bad", "system", "tokenizer", "seed")},
    )


@contextmanager
def opened(job: Job, log: Path) -> Iterator[tuple[Engine, ChatTemplate | None, SampleConfig, str]]:
    """Engine, template and configuration of a job, and the path its conversations can be read from."""
    raise NotImplementedError
    yield
