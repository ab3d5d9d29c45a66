"""Does a job: opens what it needs, runs the stages into a folder or onto the screen, says how it went."""

from __future__ import annotations

import itertools
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from selfplay import dataset, judging, pipeline, progress, summary
from selfplay.choosing import in_order, preferences, selection
from selfplay.config import SampleConfig, SelectConfig
from selfplay.core import Site
from selfplay.engines.base import CacheUse, Engine
from selfplay.engines.opening import check, open_engine
from selfplay.errors import EngineError, TooManyBadRows, UsageError
from selfplay.inputs.quarantine import Quarantine, parse_max_bad
from selfplay.inputs.source import keep_apart, readable
from selfplay.interrupt import Interrupt
from selfplay.job import Job, configure, read_sites
from selfplay.learned import load_rules
from selfplay.pipeline import Judge
from selfplay.prompting.templates import ChatTemplate
from selfplay.rounds import summary as rounds
from selfplay.rounds.parts import recover
from selfplay.rounds.sampling import sample_until
from selfplay.runs import Run
from selfplay.showing import candidates as show
from selfplay.signals.likelihood import DEFAULT_SCORER, MAX_TOKENS
from selfplay.signals.measure import SCORED, default_scorer, scorer_template
from selfplay.signals.tiers import Scorer
from selfplay.signals.writer import SELF
from selfplay.terminal import printable

PACKAGES = ("selfplay-turns", "polars", "rapidfuzz", "tokenizers", "torch", "transformers", "sentence-transformers")


def versions() -> dict[str, str]:
    """Of Python and of the packages that matter, those that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def context_length(engine: Engine, template: ChatTemplate | None) -> int | None:
    """Tokens that prompt and turn together may have; None where nothing tells."""
    known = [engine.context_length, template.tokenizer.context_length if template else None]
    return min((length for length in known if length is not None), default=None)


@contextmanager
def stages(
    job: Job, config: SampleConfig, select: SelectConfig | None, template: ChatTemplate | None, log: Path
) -> Iterator[tuple[Engine, Judge | None]]:
    """The engine, and the judge of a job that has one; both closed at the end."""
    with ExitStack() as stack:
        gathers = select is not None and "state" in select.tiers and scores_what_it_samples(job, config, select)
        layer = judging.state_layer(job.judging) if gathers and job.judging else None
        engine = open_engine(job.engine, config.model, log, job.judging is not None, layer, MAX_TOKENS)
        stack.callback(engine.close)
        if job.judging is None or select is None:
            yield engine, None
            return
        shared = own_scorer(job, config, select, engine, template) if {*SCORED} & {*select.tiers} else None
        if shared is not None and shared.engine is not engine:
            stack.callback(shared.engine.close)
        yield engine, stack.enter_context(judging.opened(select, job.judging, shared))


def own_scorer(
    job: Job, config: SampleConfig, select: SelectConfig, engine: Engine, template: ChatTemplate | None
) -> Scorer | None:
    """What scores turns by the very tokens that were sampled, where the generator is the scorer; else None.

    A server scores besides sampling, by name only (`--scorer-model self`). In this process the sampling engine scores
    where it runs as rules and weights were learned, on the default device and in the default dtype; else a second one.
    """
    if job.judging is None or job.tokenizer is not None:
        return None
    scorer = select.scorer_model or DEFAULT_SCORER
    if job.engine.engine != "transformers":
        asked = job.judging.scorer_model == SELF
        return Scorer(engine, template, own_tokens=True) if asked and template is not None else None
    if scorer != config.model or job.engine.revision is not None:
        return None
    if job.engine.device is None and job.engine.dtype == "auto":
        own_logprobs = scores_what_it_samples(job, config, select)
        return Scorer(engine, scorer_template(select.scorer_model), own_tokens=True, own_logprobs=own_logprobs)
    return Scorer(*default_scorer(select.scorer_model), own_tokens=True)


def scores_what_it_samples(job: Job, config: SampleConfig, select: SelectConfig) -> bool:
    """Whether the sampling engine is the scorer, and the prompts that scoring renders are those of sampling."""
    options = job.engine
    here = options.engine == "transformers" and options.revision is None and job.tokenizer is None
    as_learned = options.device is None and options.dtype == "auto" and job.system == "keep"
    same = (select.scorer_model or DEFAULT_SCORER) == config.model
    return here and as_learned and same and bool({*SCORED} & {*select.tiers})


def selecting(job: Job, generator: str) -> SelectConfig | None:
    """How the job judges, if it does; says which signals it does without."""
    if job.judging is None:
        return None
    if job.judging.scorer_model == SELF and (job.engine.revision or job.engine.chat):
        other = "--chat" if job.engine.chat else "--revision"
        raise UsageError(f"--scorer-model self does not go with {other}; name the scorer")
    # A server tells likelihoods of the turns it sampled, but not what its layers hold.
    states = job.judging.scorer_model != SELF or job.engine.engine == "transformers"
    select, notes = judging.configure(job.judging, generator, states)
    for note in notes:
        click.echo(printable(note), err=True)
    return select


def execute(job: Job, out: Path, *, fresh: bool, quiet: bool, examples: int = 0) -> int:
    """Does the job into a folder and says how it went.

    Returns:
        The exit code: 0 done, 1 some sites failed, 130 interrupted.

    Raises:
        SelfplayError: A mistake in the options, an engine that cannot go on, too many bad rows.
    """
    check(job.engine)
    check_places(job, out)
    with ExitStack() as stack:
        path = stack.enter_context(readable(job.conversations))
        config, template = configure(job, path, None if fresh else out)
        select = selecting(job, config.model)
        run = Run(out, config.as_json(), select.as_json() if select else None, fresh)
        stack.callback(run.close)
        quarantine = stack.enter_context(Quarantine(out / "quarantine.jsonl", job.max_bad))
        engine, judge = stack.enter_context(stages(job, config, select, template, out / "engine.log"))
        described = engine.describe()
        refuse_other_dtype(run, described)
        run.save(status="running", versions=versions(), engine=described)
        with Interrupt() as interrupt, progress.shown(quiet) as shown:
            sites = read_sites(job, path, quarantine)
            session = work(run, engine, judge, config, template, sites, quarantine, interrupt, shown)
        if session.error is None and not session.interrupted:
            try:
                quarantine.check()
            except TooManyBadRows as error:
                session.error = error
        code = finish(run, job, config, select, session, quarantine)
        if code == 130:
            say_interrupted(out)
        if not quiet and code != 130:
            show.closing(run, examples)
        return code


def check_places(job: Job, out: Path) -> None:
    """Refuses an output that is a file or lies in the input, an input in the output, and a senseless --max-bad.

    Raises:
        UsageError: With the reason.
    """
    parse_max_bad(job.max_bad)
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; -o names a folder")
    keep_apart(job.conversations, out, "-o")
    if job.conversations != "-" and Path(job.conversations).resolve().is_relative_to(out.resolve()):
        raise UsageError(f"{job.conversations} lies in the run's folder {out}; move it, or name another folder with -o")


def say_interrupted(out: Path) -> None:
    """Where the same command goes on."""
    click.echo(f"interrupted; the same command goes on from here: {printable(str(out))}", err=True)


def work(
    run: Run,
    engine: Engine,
    judge: Judge | None,
    config: SampleConfig,
    template: ChatTemplate | None,
    sites: Iterator[Site],
    quarantine: Quarantine,
    interrupt: Interrupt,
    shown: pipeline.Progress,
) -> pipeline.Session:
    """Samples what the run lacks and, with a judge, judges it meanwhile; in rounds where the configuration says so."""
    what = (
        run, engine, config, template, context_length(engine, template), sites, quarantine, interrupt, shown
    )  # fmt: skip
    if judge is None:
        return pipeline.sample(*what)
    in_rounds = config.until_survivors is not None
    if in_rounds:
        recover(run)
    scored = getattr(engine, "scored", CacheUse())
    before = scored.tokens, scored.cached
    judging_parts = pipeline.Judging(run, judge)
    try:
        session = sample_until(*what, judging_parts) if in_rounds else pipeline.sample(*what, judging_parts.submit)
    except BaseException:
        judging_parts.leave(wait=not interrupt.now)  # it must not write on once the lock and its models are gone
        raise
    if session.interrupted:
        judging_parts.leave()
    if not interrupt.now:
        judging_parts.finish(interrupt)
    session.judging_seconds = judging_parts.seconds
    session.scored_tokens, session.scored_cached = scored.tokens - before[0], scored.cached - before[1]
    unjudged = next(run.unfinished(), None) is not None
    session.interrupted = session.interrupted or (interrupt.asked and unjudged)
    return session


def refuse_other_dtype(run: Run, described: Mapping[str, Any]) -> None:
    """Raises UsageError where samples are there in another dtype. Only an open engine knows what `auto` means."""
    before, now = run.record.get("engine", {}).get("dtype"), described.get("dtype")
    if before is not None and now is not None and before != now and run.begun():
        raise UsageError(
            f"{run.folder} holds a run with other settings (dtype: {before!r} -> {now!r}); sample in {before} again, "
            "name another folder, or start over with --fresh"
        )


def finish(
    run: Run,
    job: Job,
    config: SampleConfig,
    select: SelectConfig | None,
    session: pipeline.Session,
    quarantine: Quarantine,
) -> int:
    """Writes the dataset, if the session ended well, and the record of it; returns the exit code."""
    summed = None
    if session.error is None and not session.interrupted:
        summed = write_results(run, job, config, select, [*run.record["sessions"], session.as_json()])
    return record(run, session, quarantine, summed)


def write_results(
    run: Run, job: Job, config: SampleConfig, select: SelectConfig | None, sessions: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Writes what a finished run is made for; returns its summary."""
    if job.judging is None:
        dataset.write_turns(run)
        return summary.counted(run)
    if job.judging.diversity and select is not None:
        in_order.choose_in_order(run, select, selection.encoder(select.tiers))
    dataset.write_dataset(run)
    in_rounds = config.until_survivors is not None
    # Hard sites have more candidates in later rounds; only the first says what one draw is worth.
    before = rounds.drawn_in(config) == 0 if in_rounds else None
    summed = summary.summarize(run, load_rules(job.judging.rules), sessions, before)
    if in_rounds:
        summed["rounds"] = rounds.summarize(run, config)
    # Once asked for, pairs are kept up with the choice.
    if kind := job.judging.pairs or run.record.get("pairs"):
        run.save(pairs=kind)
        summed["pairs"] = preferences.write_pairs(run, kind)
    return summed


def record(run: Run, session: pipeline.Session, quarantine: Quarantine, summed: Mapping[str, Any] | None) -> int:
    """Notes a session in `run.json`, `summed` being the summary where it ended well; returns the exit code.

    Raises:
        EngineError, TooManyBadRows: What the session ended with.
    """
    pipeline.write_failed(run.folder, session.failed)
    sessions = [*run.record["sessions"], session.as_json()]
    counts = {"rows": quarantine.rows, "bad_rows": quarantine.bad, "bad_by_reason": quarantine.summary()}
    if session.error is not None or session.interrupted:
        run.save(status="interrupted" if session.interrupted else "failed", sessions=sessions, input=counts)
        if session.error:
            raise session.error
        return 130
    run.save(status="done", sessions=sessions, input=counts, failed=len(session.failed), summary=summed)
    if session.failed:
        click.echo(
            f"{len(session.failed)} sites failed, see {printable(str(run.folder / 'failed.jsonl'))}; "
            "the same command tries them again",
            err=True,
        )
        return 1
    return 0


def preview(job: Job, count: int) -> int:
    """Shows the first `count` sites with their candidates, and keeps nothing."""
    check(job.engine)
    with ExitStack() as stack:
        path = stack.enter_context(readable(job.conversations))
        config, template = configure(job, path)
        quarantine = stack.enter_context(Quarantine(None))
        select = selecting(job, config.model)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="selfplay-")))
        engine, judge = stack.enter_context(stages(job, config, select, template, folder / "engine.log"))
        run = Run(folder / "run", config.as_json(), select.as_json() if select else None)
        stack.callback(run.close)
        sites = itertools.islice(read_sites(job, path, quarantine), count)
        with Interrupt() as interrupt:
            session = work(run, engine, judge, config, template, sites, quarantine, interrupt, progress.Silent())
        if session.error is not None:
            raise session.error
        for key, reason in session.failed.items():
            raise EngineError(f"{key}: {reason}")
        if not session.sites:
            quarantine.check()
        if select is not None and select.diversity:
            in_order.choose_in_order(run, select, selection.encoder(select.tiers))
        for number in run.parts("turns" if judge else "sampled"):
            show.candidates(run.read("turns" if judge else "sampled", number), run.read("sites", number))
        return 130 if session.interrupted else 0
