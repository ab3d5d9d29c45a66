"""`--on-bad replace`: an ordinary run draws and chooses turns where the first bad ones stood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from selfplay import execution
from selfplay.cleaning.folder import REPLACEMENTS, TO_REPLACE, Cleaning
from selfplay.cleaning.policy import Policy
from selfplay.cleaning.reading import Judged, judged
from selfplay.dataset import write_lines
from selfplay.engines.opening import check
from selfplay.inputs.shapes import site_ends
from selfplay.job import Job, from_options
from selfplay.runs import Parts

COLUMNS = ("turn", "model", "temperature", "sample", "seed", "label", "p_genuine", "groundedness")


def wanted(found: Judged) -> int | None:
    """The index of the turn that another is to replace, or None: no turn is bad, or none can be drawn there."""
    bad = next((turn["index"] for turn in found.turns if turn["bad"]), None)
    if bad is None or site_ends(found.conversation.messages[:bad])[-1:] != [bad]:
        return None
    return int(bad)


def run_job(folder: Path, options: Mapping[str, Any]) -> Job:
    """What is run in a cleaning's folder.

    Args:
        options: Those of `selfplay run`, but for what is read and what is written.

    Raises:
        UsageError: Options that do not fit together.
    """
    source = str(folder / TO_REPLACE)
    job = from_options({**options, "conversations": source, "turns": "last", "limit": None, "max_bad": None})
    check(job.engine)
    return job


def draw(
    folder: Cleaning, path: str, policy: Policy, job: Job, fresh: bool, quiet: bool
) -> tuple[int, dict[int, dict[str, Any]]]:
    """Runs what `selfplay run` would on the contexts; goes on with an earlier start's.

    Args:
        job: What `run_job` gave.

    Returns:
        The exit code of the run; and by the place of a conversation in reading order the turn that was chosen for it,
        `COLUMNS`, where one was.
    """
    places: dict[str, int] = {}
    if not write_lines(folder.folder / TO_REPLACE, _contexts(folder, path, policy, places)):
        return 0, {}
    code = execution.execute(job, folder.folder / REPLACEMENTS, fresh=fresh, quiet=quiet)
    return code, _chosen(Parts(folder.folder / REPLACEMENTS), places) if code != 130 else {}


def _contexts(folder: Cleaning, path: str, policy: Policy, places: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Rows of a file of conversations; notes where they come from."""
    for found in judged(folder, path, policy):
        end = wanted(found)
        if end is not None:
            places[found.conversation.id] = found.place
            yield {"id": found.conversation.id, "messages": found.conversation.messages[:end]}


def _chosen(run: Parts, places: Mapping[str, int]) -> dict[int, dict[str, Any]]:
    paths = [run.path("turns", number) for number in run.parts("turns")]
    if not paths:
        return {}
    table = pl.scan_parquet(paths).filter("selected").select("conversation_id", *COLUMNS).collect()
    return {places[row.pop("conversation_id")]: row for row in table.iter_rows(named=True)}
