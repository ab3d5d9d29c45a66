"""`selfplay judge`: labels and grades candidate turns by a language model that reads the rubric."""

from __future__ import annotations

import click

from selfplay.commands import options
from selfplay.errors import UsageError


@click.command(
    epilog="Example: selfplay judge turns.jsonl -o judged.jsonl --model gpt-5-mini --max-cost 2 --price-in 0.25 "
    "--price-out 2\n\n"
    "         selfplay judge turns.jsonl -o judged.jsonl --model Qwen/Qwen3-32B --base-url http://gpu1:8000/v1",
    short_help="Have language models judge candidate turns by the rubric.",
)
@options.turn_rows
@click.option("--model", "models", multiple=True, required=True, metavar="NAME", help="Judge; repeat for several.")
@click.option("--base-url", metavar="URL", help="OpenAI-compatible server. [env: OPENAI_BASE_URL; default: OpenAI]")
@click.option("--concurrency", type=click.IntRange(1, 1024), default=16, show_default=True, help="Requests at once.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many turns.")
@click.option(
    "--max-cost",
    type=click.FloatRange(min=0, min_open=True),
    metavar="USD",
    help="Stop before this call costs more, with exit code 4. Needs both prices.",
)
@click.option(
    "--price-in",
    "prices_in",
    multiple=True,
    type=click.FloatRange(min=0),
    metavar="USD",
    help="Of a million tokens read; once for all judges, or once for each.",
)
@click.option(
    "--price-out",
    "prices_out",
    multiple=True,
    type=click.FloatRange(min=0),
    metavar="USD",
    help="Of a million tokens written.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(min=16),
    default=1024,
    show_default=True,
    help="Limit of an answer, a judge's own reasoning included.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    help="Seconds without a byte before a request is tried again.",
)
@click.option("--cache", metavar="FILE", help="Where verdicts are kept. [default: OUT.cache.jsonl; none with stdout]")
@click.option("--retry-invalid", is_flag=True, help="Ask again where an earlier answer was invalid.")
def command(
    file: str,
    out: str,
    quarantine: str | None,
    max_bad: str | None,
    models: tuple[str, ...],
    base_url: str | None,
    concurrency: int,
    limit: int | None,
    max_cost: float | None,
    prices_in: tuple[float, ...],
    prices_out: tuple[float, ...],
    max_tokens: int,
    timeout: float,
    cache: str | None,
    retry_invalid: bool,
) -> int | None:  # fmt: skip
    """Have language models judge candidate turns by the rubric.

    FILE holds conversations that end with the assistant's message, each with one candidate `turn`: JSONL (also .gz,
    .zst), Parquet, a dataset folder, or - for stdin. One row comes out for each turn and judge, in order, with judge,
    label, groundedness (0 to 3), reason and judge_error added; an answer that is not valid has no label and says why.
    Verdicts are kept by content: the same command goes on where it stopped, and asks nothing twice. Exit codes: 0 all
    judged (invalid answers included), 1 some got no answer, 4 the cost limit was reached, 130 interrupted.
    """
    import os
    from pathlib import Path

    from selfplay.judge.budget import Budget, Price
    from selfplay.judge.cache import Cache
    from selfplay.judge.client import Judge
    from selfplay.judge.panel import Panel, ended, judge_file

    if not all(model.strip() for model in models):
        raise UsageError("--model is empty; give the name that the server knows the judge by")
    if len(set(models)) < len(models):
        raise UsageError("--model names a judge twice")
    prices = [_for_each(given, models, name) for given, name in ((prices_in, "in"), (prices_out, "out"))]
    if max_cost is not None and not (prices_in and prices_out):
        raise UsageError("--max-cost needs --price-in and --price-out, in USD for a million tokens")
    in_file = out != "-" and (os.path.isfile(out) or not os.path.exists(out))
    kept = Path(cache) if cache else Path(f"{out}.cache.jsonl") if in_file else None
    if kept and any(os.path.realpath(kept) == os.path.realpath(path) for path in (file, out, quarantine) if path):
        raise UsageError(f"--cache {kept}: that file has another use here; give one of its own")
    with options.quarantine_beside(out, quarantine, max_bad, file) as bad, Cache(kept) as verdicts:
        budget = Budget(max_cost)
        judges = [
            Judge(model, budget, base_url, price=Price(*price), max_tokens=max_tokens, timeout=timeout)
            for model, *price in zip(models, *prices, strict=True)
        ]
        panel = Panel(judges, verdicts, budget, concurrency=concurrency, anew=retry_invalid)
        try:
            options.say(judge_file(panel, file, out, bad, limit))
            options.say(panel.tally.report(judges, budget, bool(prices_in or prices_out)))
        finally:
            panel.close()
    if panel.interrupted:
        options.say(["stopped; the same command goes on"])
        return 130
    ended(panel)
    return None


def _for_each(given: tuple[float, ...], models: tuple[str, ...], name: str) -> list[float | None]:
    """A price for each judge."""
    if len(given) not in (0, 1, len(models)):
        raise UsageError(f"--price-{name}: {len(given)} prices for {len(models)} judges; give one, or one for each")
    return list(given) if len(given) == len(models) else [given[0] if given else None] * len(models)
