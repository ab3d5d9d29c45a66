"""What the options of `run` and `sample` describe: a job, and the configuration that decides its outcome."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from selfplay import judging
from selfplay.config import SampleConfig
from selfplay.core import Sampling, Site
from selfplay.engines.opening import EngineOptions, served_model
from selfplay.errors import UsageError
from selfplay.inputs.conversations import read_conversations, sites
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.source import content_hash
from selfplay.models import fingerprint, resolve
from selfplay.prompting.templates import ChatTemplate
from selfplay.prompting.tokenizer import load_tokenizer

DEFAULT_MODEL = "smollm2-135m"
ROUNDS = 4
"""Without --max-n, a site gets at most so many times the candidates of the first round."""


@dataclass(frozen=True, slots=True)
class Job:
    """All options of a run, checked against each other."""

    conversations: str
    turns: Literal["last", "all"]
    limit: int | None
    max_bad: str | None
    system: str
    tokenizer: str | None
    temperatures: Mapping[float, int]
    sampling: Sampling
    seed: int
    engine: EngineOptions
    judging: judging.Options | None
    until_survivors: int | None = None
    max_n: int | None = None


def from_options(values: Mapping[str, Any]) -> Job:
    """The job that a verb's options describe.

    Raises:
        UsageError: Options that do not fit together.
    """
    given = dict(values)
    if given["model"] is not None and not given["model"].strip():
        raise UsageError("--model is empty; give a name, a folder or a Hugging Face id")
    if given["model"] is None and not given["base_urls"]:
        given["model"] = DEFAULT_MODEL
    temperatures: dict[float, int] = {}
    for temperature, count in given["temperatures"] or [(1.0, None)]:
        if temperature in temperatures:
            raise UsageError(f"--temperature {temperature:g} is given twice")
        # At T=0 every sample is the same text: one is enough unless a number is asked for.
        temperatures[temperature] = count or (1 if temperature == 0 else given["n"])
    until_survivors, max_n = _rounds(given, temperatures)
    return Job(
        until_survivors=until_survivors,
        max_n=max_n,
        engine=EngineOptions(**{f.name: given[f.name] for f in fields(EngineOptions)}),
        temperatures=temperatures,
        sampling=Sampling(**{f.name: given[f.name] for f in fields(Sampling)}),
        judging=judging.Options(**{f.name: given[f.name] for f in fields(judging.Options)})
        if "rules" in given
        else None,
        **{name: given[name] for name in ("conversations", "turns", "limit", "max_bad", "system", "tokenizer", "seed")},
    )


def _rounds(given: Mapping[str, Any], temperatures: Mapping[float, int]) -> tuple[int | None, int | None]:
    """`--until-survivors` and `--max-n`, checked."""
    wanted, most, first = given.get("until_survivors"), given.get("max_n"), sum(temperatures.values())
    if wanted is None:
        if most is not None:
            raise UsageError("--max-n limits the rounds of --until-survivors; give that too, or only --n")
        return None, None
    if not any(temperatures):
        raise UsageError("--until-survivors draws again, and at temperature 0 every draw is the same; raise it")
    if most is None:
        most = ROUNDS * first
    if most < max(first, wanted):
        what = f"the {first} candidates of the first round" if most < first else f"--until-survivors {wanted}"
        raise UsageError(f"--max-n {most} is less than {what}")
    return wanted, most


def load_template(job: Job, model: str, now: str | None = None) -> ChatTemplate:
    """The chat template that makes the prompts.

    Args:
        now: The date that an earlier start of the same run showed to the template.
    """
    date = datetime.fromisoformat(now) if now else None
    return ChatTemplate(load_tokenizer(job.tokenizer or model, job.engine.revision, now=date))


def configure(job: Job, path: str, folder: Path | None = None) -> tuple[SampleConfig, ChatTemplate | None]:
    """What decides the samples, to be saved and compared on resume.

    Args:
        path: Where the conversations can be read.
        folder: The run's, where an earlier start may have fixed the date that templates see.
    """
    model = job.engine.model or served_model(job.engine)
    template = None
    if not job.engine.chat:
        template = load_template(job, model, earlier_date(folder) if folder else None)
    date = template.tokenizer.date if template else None
    place = Path(resolve(model)) if not job.engine.chat else Path(model)
    commit = template.tokenizer.revision if template else None
    config = SampleConfig(
        source=job.conversations,
        source_hash=content_hash(path),
        model=model,
        revision=job.engine.revision,
        model_hash=fingerprint(place) if place.is_dir() else commit,
        tokenizer=job.tokenizer,
        template_hash=template.tokenizer.template_hash if template else "",
        template_date=date.isoformat() if date else None,
        engine=job.engine.engine,
        primed=job.engine.chat or job.system not in ("keep", "drop"),
        turns=job.turns,
        limit=job.limit,
        system=job.system,
        temperatures=job.temperatures,
        sampling=job.sampling,
        seed=job.seed,
        until_survivors=job.until_survivors,
        max_n=job.max_n,
    )
    return config, template


def earlier_date(folder: Path) -> str | None:
    """The date an earlier start of the run in `folder` showed to the template."""
    try:
        date = json.loads((folder / "run.json").read_bytes())["sample"]["template_date"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return date if isinstance(date, str) else None


def read_sites(job: Job, path: str, quarantine: Quarantine) -> Iterator[Site]:
    """The sites of the job, as a stream."""
    return itertools.islice(sites(read_conversations(path, quarantine), job.turns), job.limit)
