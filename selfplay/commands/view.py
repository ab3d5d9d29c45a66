"""`selfplay view`: the pages of a report from a server of this machine, or turns for people to label."""

from __future__ import annotations

import click

from selfplay.commands import options
from selfplay.errors import UsageError


@click.command(
    epilog="Example: selfplay view dataset --open\n\n"
    "         selfplay view dataset --annotate ana.jsonl --annotator ana --n 200",
    short_help="Show results in a local browser, or have people label turns there.",
)
@click.argument("folder", metavar="RUN")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="[default: any that is free]")
@click.option("--open", "show", is_flag=True, help="Open the browser.")
@options.shown
@click.option("--annotate", "out", metavar="FILE", help="Have turns labelled; each label goes to FILE (JSONL) at once.")
@click.option("--annotator", metavar="NAME", help="With --annotate: who labels.")
@click.option("--n", type=click.IntRange(min=1), default=100, show_default=True, help="Turns to label, at most.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides which turns, and their order.")
@click.pass_context
def command(
    ctx: click.Context,
    folder: str,
    port: int,
    show: bool,
    sites: int,
    by: tuple[str, ...],
    out: str | None,
    annotator: str | None,
    n: int,
    seed: int,
) -> None:  # fmt: skip
    """Show results in a local browser, or have people label turns there.

    RUN is what run, clean or play has written. The address it prints works on this machine only, and only with the
    token in it. With --annotate nothing of models, temperatures, labels, rules or scores is shown; the turns come in
    random order and are labelled by keyboard. The same command goes on where it was left, and FILE is what agree and
    train read.
    """
    from selfplay.viewing import view

    for name, mode in {"sites": False, "by": False, "annotator": True, "n": True, "seed": True}.items():
        if mode != bool(out) and ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise UsageError(f"--{name} {'goes' if mode else 'does not go'} with --annotate FILE")

    def say(line: str) -> None:
        options.say([line])

    if out is None:
        view.browse(folder, port, show, say, sites, by)
        return
    if not (annotator and annotator.strip()):
        raise UsageError("--annotate also takes --annotator NAME, who labels")
    view.annotate(folder, port, show, say, out, annotator.strip(), n, seed)
