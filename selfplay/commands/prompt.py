"""`selfplay prompt`: show the exact prompt at a site, its stops and token count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from selfplay.errors import UsageError

if TYPE_CHECKING:
    from selfplay.core import Prompt, Site
    from selfplay.prompting.tokenizer import Tokenizer

EPILOG = "Example: selfplay prompt conversations.jsonl --model Qwen/Qwen3-0.6B --site mtbench-81#1"


@click.command(name="prompt", epilog=EPILOG)
@click.argument("path", metavar="FILE")
@click.option("--model", default="smollm2-135m", show_default=True, help="Embedded name, folder or Hugging Face id.")
@click.option("--revision", help="Commit or branch on Hugging Face.")
@click.option("--site", "site_id", metavar="ID", help="The site with this id, e.g. mtbench-81#1.")
@click.option("--index", type=click.IntRange(min=0), help="The site at this place, counted from 0.  [default: 0]")
@click.option(
    "--turns", type=click.Choice(["last", "all"]), help="Which sites there are.  [default: last; all with --site]"
)
@click.option(
    "--system",
    metavar="keep|drop|TEXT",
    default="keep",
    show_default=True,
    help="drop leaves the conversation's system messages out (a template's own default stays), TEXT replaces them.",
)
@click.option("--header", type=click.Choice(["user", "assistant"]), default="user", show_default=True)
@click.option("--raw", is_flag=True, help="Nothing but the exact bytes of the prompt.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    path: str,
    model: str,
    revision: str | None,
    site_id: str | None,
    index: int | None,
    turns: str | None,
    system: str,
    header: str,
    raw: bool,
    as_json: bool,
) -> None:
    """Show the exact prompt at a site of FILE: the text that MODEL continues, its stops and token count.

    Newlines, control characters and backslashes are shown escaped, so that every character can be told; each \\n
    also starts a new line.
    """
    if site_id is not None and index is not None:
        raise UsageError("--site and --index: give one of them")
    if raw and as_json:
        raise UsageError("--raw and --json: give one of them")
    from selfplay.prompting.templates import ChatTemplate
    from selfplay.prompting.tokenizer import load_tokenizer

    site = _find(path, site_id, index or 0, turns or ("all" if site_id else "last"))
    template = ChatTemplate(load_tokenizer(model, revision))
    prompt: Prompt | None = (
        template.user_prompt(site.messages, system)
        if header == "user"
        else template.assistant_prompt(site.messages, system)
    )
    if prompt is None:
        raise UsageError(f"{model} has no assistant header of its own; use --header user")
    if raw:
        click.echo(prompt.text.encode(), nl=False)
        return
    facts = _facts(site, prompt, template.tokenizer)
    if as_json:
        import json

        click.echo(json.dumps({**facts, "prompt": prompt.text, "token_ids": list(prompt.token_ids)}))
        return
    from selfplay.terminal import printable

    context = f" of {facts['context_length']}" if facts["context_length"] else ""
    stops = [f"token {token} {visible(text)}" for token, text in facts["stop_tokens"].items()]
    click.echo(f"site: {printable(site.site_id)}")
    click.echo(f"model: {printable(model)} (template {facts['template_hash']})")
    click.echo(f"tokens: {facts['tokens']}{context}")
    click.echo(f"stops: {', '.join(stops + [f'text {visible(stop)}' for stop in prompt.stop])}")
    click.echo("prompt:")
    click.echo(visible(prompt.text, line_breaks=True), nl=not prompt.text.endswith("\n"))


def visible(text: str, line_breaks: bool = False) -> str:
    """Every character told apart and safe on a terminal: backslashes, newlines and unprintable ones are escaped.

    Args:
        line_breaks: Also start a new line after each `\\n`. Without those breaks, Python's `unicode_escape` leads back.
    """
    from selfplay.terminal import printable

    lines = (printable(line.replace("\\", r"\\")) for line in text.split("\n"))
    return ("\\n\n" if line_breaks else "\\n").join(lines)


def _facts(site: Site, prompt: Prompt, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "site_id": site.site_id,
        "model": tokenizer.model,
        "revision": tokenizer.revision,
        "template_hash": tokenizer.template_hash,
        "context_length": tokenizer.context_length,
        "tokens": len(prompt.token_ids),
        "stop": list(prompt.stop),
        "stop_token_ids": list(prompt.stop_token_ids),
        "stop_tokens": {token: tokenizer.decode([token]) for token in prompt.stop_token_ids},
    }


def _find(path: str, site_id: str | None, index: int, turns: str) -> Site:
    """The site asked for.

    Raises:
        UsageError: There is none.
    """
    from itertools import islice

    from selfplay.inputs.conversations import read_conversations, sites
    from selfplay.inputs.quarantine import Quarantine
    from selfplay.terminal import printable

    with Quarantine() as quarantine:
        found = sites(read_conversations(path, quarantine), "all" if turns == "all" else "last")
        if site_id is None:
            site = next(islice(found, index, None), None)
            if site is None:
                raise UsageError(f"{printable(path)}: no site {index} with --turns {turns}; they count from 0")
            return site
        first: list[str] = []
        for candidate in found:
            if candidate.site_id == site_id:
                return candidate
            if len(first) < 3:
                first.append(printable(candidate.site_id, 60))
        raise UsageError(f"{printable(path)}: no site {printable(site_id)}; the first ones are {', '.join(first)}")
