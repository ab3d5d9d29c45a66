"""`selfplay sample`: the first stage alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from selfplay.commands import options


@click.command("sample", epilog="Example: selfplay sample conversations.jsonl -o sampled --n 4 --temperature 1.0")
@options.reading
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="Folder of the run."
)
@options.prompting
@options.sampling
@options.engines
@click.option("--fresh", is_flag=True, help="Start over: forget what the folder's earlier run did.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no closing line.")
def command(out: Path, fresh: bool, quiet: bool, **values: Any) -> int:
    """Sample N user turns after each assistant response and write them to FOLDER/turns.jsonl.

    The rows {"id", "messages", "turn", …} are what `selfplay filter` and `selfplay rank` read. `selfplay run` with
    the same options and folder goes on from there without sampling again.
    """
    from selfplay import execution
    from selfplay.job import from_options

    return execution.execute(from_options(values), out, fresh=fresh, quiet=quiet)
