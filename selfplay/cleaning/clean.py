"""`selfplay clean` as a function: judge, find duplicates, draw replacements, write."""

from __future__ import annotations

import importlib.resources
import sys
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from selfplay.cleaning import duplicates, replacing, shown, writing
from selfplay.cleaning.folder import Cleaning
from selfplay.cleaning.policy import Policy, why_dropped
from selfplay.cleaning.reading import BATCH, BATCH_CHARS, BATCH_MEASURED, batches, judged
from selfplay.cleaning.similar import algorithm
from selfplay.cleaning.turns import How, settled
from selfplay.cleaning.workers import Batch, judge_all
from selfplay.errors import SelfplayError, TooManyBadRows, UsageError
from selfplay.execution import versions
from selfplay.inputs.conversations import read_conversations
from selfplay.inputs.quarantine import Quarantine, parse_max_bad
from selfplay.inputs.source import content_hash, keep_apart, readable
from selfplay.interrupt import Interrupt
from selfplay.terminal import printable

FIRST_BAD = ("conversation", "index", "exchanges", "label")
EVERY = 10.0
"""Seconds between lines that tell how far it has come."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be cleaned, and how.

    Attributes:
        rules: `text`, `full` or a file.
        replacing: Options of `selfplay run`, for `--on-bad replace`.
    """

    dataset: str
    rules: str = "text"
    policy: Policy = field(default_factory=Policy)
    workers: int = 1
    max_bad: str | None = None
    replacing: Mapping[str, Any] = field(default_factory=dict)


def execute(job: Job, out: Path, *, fresh: bool = False, quiet: bool = False) -> int:
    """Cleans into a folder and says how it went. Another start with the same settings goes on where one ended; another
    policy judges nothing again.

    Returns:
        The exit code: 0 done, 1 replacements failed at some conversations, 130 interrupted.

    Raises:
        SelfplayError: A mistake in the options, a folder of something else, signals that cannot be measured, too many
            bad rows.
    """
    parse_max_bad(job.max_bad)
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; -o names a folder")
    keep_apart(job.dataset, out, "-o")
    if job.dataset != "-" and Path(job.dataset).resolve().is_relative_to(out.resolve()):
        raise UsageError(f"{job.dataset} lies in the folder {out}; move it, or name another folder with -o")
    drawing = replacing.run_job(out, job.replacing) if job.policy.on_bad == "replace" else None
    with ExitStack() as stack:
        path = stack.enter_context(readable(job.dataset))
        how, notes = settled(job.rules, job.policy.duplicates != "off")
        for note in notes:
            click.echo(printable(note), err=True)
        settings = {
            "source": job.dataset,
            "source_hash": content_hash(path),
            "rules": job.rules,
            "rules_hash": _rules_hash(job.rules),
            "tiers": list(how.tiers),
            "sketches": algorithm() if how.sketched else None,
            "batch": [BATCH_MEASURED if how.tiers else BATCH, BATCH_CHARS],
        }
        folder = Cleaning(out, settings, None, fresh)
        stack.callback(folder.close)
        quarantine = stack.enter_context(Quarantine(out / "quarantine.jsonl", job.max_bad))
        folder.save(status="running", versions=versions(), policy=job.policy.as_json())
        session = {"started": time.time()}
        with Interrupt() as interrupt:
            try:
                _judge(folder, job, how, path, quarantine, interrupt, quiet)
                if not interrupt.asked:
                    quarantine.check()
            except SelfplayError:
                _ended(folder, "failed", session, quarantine)
                raise
        if interrupt.asked:
            _ended(folder, "interrupted", session, quarantine)
            click.echo(f"interrupted; the same command goes on from here: {printable(str(out))}", err=True)
            return 130
        if job.policy.good.above is not None:
            _check_calibrated(folder)
        code = 0
        replacements: dict[int, dict[str, Any]] = {}
        if drawing is not None:
            code, replacements = replacing.draw(folder, path, job.policy, drawing, fresh, quiet)
            if code == 130:
                _ended(folder, "interrupted", session, quarantine)
                return code
        found = None
        if how.sketched:
            found = duplicates.find(folder, _staying(folder, job.policy, replacements))
        tally = writing.write(out, judged(folder, path, job.policy), job.policy, found, replacements)
        folder.save(summary=tally.as_json(found))
        _ended(folder, "done", session, quarantine)
        if not quiet:
            shown.closing(out, folder.record)
        return code


def _judge(
    folder: Cleaning, job: Job, how: How, path: str, quarantine: Quarantine, interrupt: Interrupt, quiet: bool
) -> None:
    """Judges what the folder lacks; reads all, since the quarantine is written anew."""
    done = set(folder.parts("turns"))
    told = _Told(quiet)

    def missing() -> Iterator[Batch]:
        try:
            yield from batches(read_conversations(path, quarantine), bool(how.tiers), done, told.passed)
        except TooManyBadRows as error:  # what was read before is still judged
            failed.append(error)

    failed: list[TooManyBadRows] = []
    judge_all(folder.folder, how, missing(), job.workers, interrupt, told)
    if failed:
        raise failed[0]


class _Told:
    """A line now and then about how far it has come."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._conversations = self._turns = 0
        self._began = self._last = time.monotonic()

    def passed(self, conversations: int) -> None:
        """An earlier start judged these."""
        self._conversations += conversations

    def __call__(self, conversations: int, turns: int) -> None:
        self._conversations += conversations
        self._turns += turns
        now = time.monotonic()
        if not self._quiet and now - self._last >= EVERY:
            self._last = now
            rate = self._turns / (now - self._began)
            print(f"judged {self._conversations:,} conversations, {rate:,.0f} turns/s", file=sys.stderr, flush=True)


def _staying(folder: Cleaning, policy: Policy, replacements: Container[int]) -> NDArray[np.bool_]:
    """Which conversations the policy does not drop; shape (conversations,)."""
    staying = []
    place = 0
    for number in folder.parts("turns"):
        stays = np.ones(len(folder.turns_of(number)), dtype=np.bool_)
        bad = policy.marked(folder.read("turns", number, [*FIRST_BAD, "p_genuine"])).filter("bad")
        for turn in bad.unique("conversation", keep="first", maintain_order=True).iter_rows(named=True):
            where = turn["conversation"]
            stays[where] = place + where in replacements or why_dropped(policy, turn) is None
        staying.append(stays)
        place += len(stays)
    return np.concatenate(staying)


def _check_calibrated(folder: Cleaning) -> None:
    unknown = [turns["p_genuine"].is_null().all() for turns in folder.judged(["p_genuine"]) if len(turns)]
    if unknown and all(unknown):
        raise UsageError("--keep-above: these rules have no calibration, so that p_genuine is not known")


def _rules_hash(rules: str) -> str:
    shipped = importlib.resources.files("filters") / "default_rules.json"
    return content_hash(str(shipped) if rules in ("text", "full") else rules)


def _ended(folder: Cleaning, status: str, session: dict[str, float], quarantine: Quarantine) -> None:
    counts = {"rows": quarantine.rows, "bad_rows": quarantine.bad, "bad_by_reason": quarantine.summary()}
    sessions = [*folder.record["sessions"], session | {"ended": time.time()}]
    folder.save(status=status, sessions=sessions, input=counts)
