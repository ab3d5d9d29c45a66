"""`selfplay play` as a function: stage after stage into run folders, then the dialogues that they tell.

A stage is all open dialogues at once: their answers, or their user turns. It is sampled, judged and written by the code
of `selfplay run`, and the next stage reads what it left on disk; so a kill costs a play what it costs a run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from selfplay import execution, pipeline, progress
from selfplay.config import SampleConfig, SelectConfig
from selfplay.core import Site
from selfplay.engines.base import CacheUse, Engine
from selfplay.engines.opening import check, open_engine
from selfplay.errors import TooManyBadRows, UsageError
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.source import readable
from selfplay.interrupt import Interrupt
from selfplay.job import Job, configure
from selfplay.pipeline import Judge
from selfplay.playing import summary
from selfplay.playing.dialogues import Dialogue, Limits, answered, begun, replied
from selfplay.playing.folder import PlayFolder
from selfplay.playing.job import PlayJob
from selfplay.playing.output import write_dialogues
from selfplay.playing.prompts import read_prompts
from selfplay.prompting.templates import ChatTemplate
from selfplay.runs import Parts, Run
from selfplay.tables import SAMPLED_STATE

HEADERS = 32
"""Tokens that the headers of another round may take, to be on the safe side."""


@dataclass(frozen=True, slots=True)
class Side:
    """Who speaks in a stage, and with what."""

    job: Job
    config: SampleConfig
    template: ChatTemplate | None
    engine: Engine

    @property
    def context(self) -> int | None:
        """Tokens that prompt and turn together may have."""
        return execution.context_length(self.engine, self.template)


@dataclass(slots=True)
class Play:
    """An open play: what all of its stages share."""

    job: PlayJob
    path: str
    folder: PlayFolder
    assistant: Side
    user: Side
    judge: Judge | None
    select: SelectConfig | None
    quarantine: Quarantine
    quiet: bool
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """The last stage: the answers to the last user turns."""
        return 2 * self.job.rounds

    def dialogues(self, stages: int, quarantine: Quarantine | None = None) -> Iterator[Dialogue]:
        """All dialogues as they are behind so many stages, in reading order."""
        bad = Quarantine() if quarantine is None else quarantine
        prompts = read_prompts(self.path, bad, self.job.start, self.job.persona)
        found: Iterator[Dialogue] = begun(prompts, self.job.user.limit)
        for number in range(stages):
            parts = Parts(self.folder.stage(number))
            if number % 2:
                found = replied(found, parts, self.job.marker, self.failed)
            else:
                found = answered(found, parts, self.limits, number == self.last)
        return found

    @property
    def limits(self) -> Limits:
        """When dialogues end for their length."""
        lengths = (self.job.budget, self.assistant.context, self.user.context)
        return Limits(
            budget=min((length for length in lengths if length is not None), default=math.inf),
            ahead=self.user.config.sampling.max_tokens + self.assistant.config.sampling.max_tokens + HEADERS,
            allow_cut=self.job.allow_cut,
            tokenizer=self.assistant.template.tokenizer if self.assistant.template else None,
            failed=self.failed,
        )

    def stage(self, number: int, interrupt: Interrupt) -> int:
        """Plays one stage; returns the exit code. Raises what `execution.record` raises."""
        turns = bool(number % 2)
        side, select = (self.user, self.select) if turns else (self.assistant, None)
        run = Run(self.folder.stage(number), side.config.as_json(), select.as_json() if select else None)
        try:
            described, before = side.engine.describe(), run.record["status"]
            execution.refuse_other_dtype(run, described)
            run.save(status="running", versions=execution.versions(), engine=described)
            quarantine = None if number else self.quarantine
            sites = (d.site for d in self.dialogues(number, quarantine) if d.ending is None)
            with progress.shown(self.quiet) as shown, counting(run, side.engine):
                session = self._sample(run, side, turns, sites, interrupt, shown)
            if session.error is None and not session.interrupted:
                try:
                    self.quarantine.check()
                except TooManyBadRows as error:
                    session.error = error
            self.failed |= session.failed
            if before == "done" and not (session.sites or session.failed or session.error or session.interrupted):
                run.save(status="done")
                return 0
            if turns:
                return execution.finish(run, side.job, side.config, select, session, self.quarantine)
            return execution.record(run, session, self.quarantine, summary.of_answers(run))
        finally:
            run.close()

    def _sample(
        self,
        run: Run,
        side: Side,
        turns: bool,
        sites: Iterator[Site],
        interrupt: Interrupt,
        shown: pipeline.Progress,
    ) -> pipeline.Session:
        what = (run, side.engine)
        how = (side.config, side.template)
        if turns:
            return execution.work(*what, self.judge, *how, sites, self.quarantine, interrupt, shown)

        def forget_states(number: int) -> None:
            # An engine that gathers states for judging does not know that answers are not judged.
            table = run.read("sampled", number)
            if SAMPLED_STATE in table.columns:
                run.write("sampled", number, table.drop(SAMPLED_STATE))

        return pipeline.sample(
            *what, *how, side.context, sites, self.quarantine, interrupt, shown, on_part=forget_states
        )


@contextmanager
def counting(run: Run, engine: Engine) -> Iterator[None]:
    """Adds up in `run.json` what the prefix cache held of a stage's prompts, where only the engine itself knows."""
    use: CacheUse | None = getattr(engine, "prompted", None)
    before = (use.tokens, use.cached) if use else (0, 0)
    yield
    if use is not None:
        was = run.record.get("prompts", {"tokens": 0, "cached": 0})
        tokens, cached = was["tokens"] + use.tokens - before[0], was["cached"] + use.cached - before[1]
        run.save(prompts={"tokens": tokens, "cached": cached})


def play(job: PlayJob, out: Path, *, fresh: bool, quiet: bool) -> int:
    """Plays the dialogues into a folder and says how it went.

    Returns:
        The exit code: 0 done, 1 some dialogues failed, 130 interrupted.

    Raises:
        SelfplayError: A mistake in the options, an engine that cannot go on, too many bad rows.
    """
    for side in (job.assistant, job.user):
        check(side.engine)
    execution.check_places(job.user, out)
    with ExitStack() as stack:
        opened = _open(job, out, fresh, quiet, stack)
        folder, code = opened.folder, 0
        with Interrupt() as interrupt:
            for number in range(opened.last + 1):
                if not quiet:
                    click.echo(f"{folder.stage(number).name} (of {job.rounds} rounds)", err=True)
                try:
                    code = max(code, opened.stage(number, interrupt))
                except BaseException:
                    folder.save(status="failed")
                    raise
                if code == 130 or interrupt.asked:
                    folder.save(status="interrupted")
                    execution.say_interrupted(out)
                    return 130
        pipeline.write_failed(folder.folder, opened.failed)
        sides = opened.assistant.config, opened.user.config
        ends = write_dialogues(lambda: opened.dialogues(opened.last + 1), out, *sides)
        folder.save(status="done", failed=len(opened.failed), summary=summary.measure(folder, job.rounds, ends))
        opened.quarantine.close()
        if not quiet:
            summary.show(folder)
        return code


def _open(job: PlayJob, out: Path, fresh: bool, quiet: bool, stack: ExitStack) -> Play:
    path = stack.enter_context(readable(job.user.conversations))
    assistant_config, assistant_template = configure(job.assistant, path, None if fresh else out / "answers-01")
    user_config, user_template = configure(job.user, path, None if fresh else out / "round-01")
    assistant_config = replace(assistant_config, primed=False)
    user_config = replace(user_config, persona=job.persona)
    select = execution.selecting(job.user, user_config.model)
    settings = job.settings(assistant_config, user_config)
    folder = PlayFolder(out, settings, select.as_json() if select else None, fresh)
    stack.callback(folder.close)
    if len(folder.stages()) > 2 * job.rounds + 1:
        played = len(folder.stages()) // 2
        raise UsageError(f"{out} holds {played} rounds; give --rounds {played} or more, or start over with --fresh")
    quarantine = stack.enter_context(Quarantine(out / "quarantine.jsonl", job.user.max_bad))
    log = out / ("engine.log" if job.one_engine else "user.log")
    engine, judge = stack.enter_context(execution.stages(job.user, user_config, select, user_template, log))
    answering = engine
    if not job.one_engine:
        options, log = job.assistant.engine, out / "engine.log"
        answering = open_engine(options, assistant_config.model, log, share_cpu=True, answering=True)
        stack.callback(answering.close)
    folder.save(status="running", rounds=job.rounds, versions=execution.versions())
    return Play(
        job,
        path,
        folder,
        Side(job.assistant, assistant_config, assistant_template, answering),
        Side(job.user, user_config, user_template, engine),
        judge,
        select,
        quarantine,
        quiet,
    )
