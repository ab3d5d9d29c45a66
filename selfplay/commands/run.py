"""`selfplay run`: conversations in, grounded user turns out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from selfplay.commands import options


@click.command(
    "run",
    epilog="Example: selfplay run conversations.jsonl -o dataset --n 8 --temperature 0.7:4 --temperature 1.0:4",
)
@options.reading
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="DATASET", help="Folder of the dataset.")
@options.prompting
@options.sampling
@options.rounds
@options.engines
@options.judging
@options.choosing
@click.option("--fresh", is_flag=True, help="Start over: forget what the folder's earlier run did.")
@click.option("--preview", type=click.IntRange(min=1), metavar="K", help="Show K sites with candidates; write nothing.")
@click.option("--show", type=click.IntRange(min=0), default=0, metavar="K", help="End with K before/after examples.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no closing table.")
def command(out: Path | None, fresh: bool, preview: int | None, show: int, quiet: bool, **values: Any) -> int:
    """Sample N user turns after each assistant response, filter them, rank the survivors, write a dataset.

    CONVERSATIONS is JSONL (also .gz, .zst), Parquet, a Hugging Face dataset folder, or - for stdin. Started again, an
    interrupted run goes on where it stopped. With --until-survivors K, sites with fewer than K turns to choose from
    are drawn at again, up to --max-n candidates.
    """
    from selfplay import execution
    from selfplay.job import from_options

    job = from_options(values)
    if preview is not None:
        return execution.preview(job, preview)
    if out is None:
        raise click.UsageError("where to? Give -o DATASET, or --preview 3 to only look")
    return execution.execute(job, out, fresh=fresh, quiet=quiet, examples=show)
