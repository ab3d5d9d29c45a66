"""Options of the verbs that ask a language model, and what makes askers of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from selfplay.commands.options import stack
from selfplay.errors import UsageError

if TYPE_CHECKING:
    from selfplay.judge.asking import Asker
    from selfplay.judge_ranking import JudgeRanking

asking = stack(
    click.option("--base-url", metavar="URL",
                 help="OpenAI-compatible server. [env: OPENAI_BASE_URL; default: OpenAI]"),
    click.option("--concurrency", type=click.IntRange(1, 1024), default=16, show_default=True,
                 help="Requests at once."),
    click.option("--max-cost", type=click.FloatRange(min=0, min_open=True), metavar="USD",
                 help="Stop before this call costs more, with exit code 4. Needs both prices."),
    click.option("--price-in", "prices_in", multiple=True, type=click.FloatRange(min=0), metavar="USD",
                 help="Of a million tokens read; once for all judges, or once for each."),
    click.option("--price-out", "prices_out", multiple=True, type=click.FloatRange(min=0), metavar="USD",
                 help="Of a million tokens written."),
    click.option("--max-tokens", type=click.IntRange(min=16), default=1024, show_default=True,
                 help="Limit of an answer, a judge's own reasoning included."),
    click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=120.0, show_default=True,
                 help="Seconds without a byte before a request is tried again."),
    click.option("--cache", metavar="FILE",
                 help="Where verdicts are kept. [default: OUT.cache.jsonl; none with stdout]"),
    click.option("--retry-invalid", is_flag=True, help="Ask again where an earlier answer was invalid."),
)  # fmt: skip

ranking = stack(
    click.option("--judge", metavar="MODEL",
                 help="Have a language model order the best of each site anew; what follows is for it."),
    click.option("--judge-mode", type=click.Choice(["pointwise", "pairwise"]), default="pointwise", show_default=True,
                 help="Grade each turn by the rubric, or compare each two in both orders."),
    click.option("--judge-top", type=click.IntRange(2, 64), default=4, show_default=True, metavar="M",
                 help="Different turns of a site that are judged: M requests, or M*(M-1) when pairwise."),
    asking,
)  # fmt: skip
JUDGED = ("judge_mode", "judge_top", "base_url", "concurrency", "max_cost", "prices_in", "prices_out", "max_tokens",
          "timeout", "cache", "retry_invalid")  # fmt: skip
"""Parameters of `ranking` that mean nothing without `--judge`."""


@contextmanager
def opened(
    models: Sequence[str], files: Sequence[str | None], out: str, given: dict[str, Any]
) -> Iterator[Asker]:  # fmt: skip
    """What asks the judges, closed at the end.

    Args:
        files: Paths that have another use in this call.
        given: Values of the options in `asking`.

    Raises:
        UsageError: Options that do not fit together.
    """
    import os
    from pathlib import Path

    from selfplay.judge.asking import Asker
    from selfplay.judge.budget import Budget, Price
    from selfplay.judge.cache import Cache
    from selfplay.judge.client import Judge

    prices = [_for_each(given[f"prices_{name}"], models, name) for name in ("in", "out")]
    if given["max_cost"] is not None and not (given["prices_in"] and given["prices_out"]):
        raise UsageError("--max-cost needs --price-in and --price-out, in USD for a million tokens")
    cache = given["cache"]
    in_file = out != "-" and (os.path.isfile(out) or not os.path.exists(out))
    kept = Path(cache) if cache else Path(f"{out}.cache.jsonl") if in_file else None
    if kept and any(os.path.realpath(kept) == os.path.realpath(path) for path in (out, *files) if path):
        raise UsageError(f"--cache {kept}: that file has another use here; give one of its own")
    with Cache(kept) as verdicts:
        budget = Budget(given["max_cost"])
        shared = {"max_tokens": given["max_tokens"], "timeout": given["timeout"]}
        judges = [
            Judge(model, budget, given["base_url"], price=Price(*price), **shared)
            for model, *price in zip(models, *prices, strict=True)
        ]
        asker = Asker(judges, verdicts, budget, concurrency=given["concurrency"], anew=given["retry_invalid"])
        try:
            yield asker
        finally:
            asker.close()


def _for_each(given: tuple[float, ...], models: Sequence[str], name: str) -> list[float | None]:
    """A price for each judge."""
    if len(given) not in (0, 1, len(models)):
        raise UsageError(f"--price-{name}: {len(given)} prices for {len(models)} judges; give one, or one for each")
    return list(given) if len(given) == len(models) else [given[0] if given else None] * len(models)


@contextmanager
def reranking(
    given: dict[str, Any], files: Sequence[str | None], out: str
) -> Iterator[JudgeRanking | None]:  # fmt: skip
    """What has a judge order ranked turns anew; None without `--judge`.

    Args:
        given: Values of the options in `ranking`.

    Raises:
        UsageError: Options that do not fit together, or that only a judge has a use for.
    """
    model = given["judge"]
    if model is None:
        _refuse_without_judge()
        yield None
        return
    if not model.strip():
        raise UsageError("--judge is empty; give the name that the server knows the judge by")
    from selfplay.judge_ranking import JudgeRanking

    with opened((model,), files, out, given) as asker:
        yield JudgeRanking(asker, given["judge_mode"], given["judge_top"])


def ended(judge: JudgeRanking | None) -> int | None:
    """The exit code of a verb whose rows are written, if it is not 0.

    Raises:
        BudgetSpent, SelfplayError: As `JudgeRanking.ended`.
    """
    if judge is None:
        return None
    if judge.interrupted:
        click.echo("stopped; the rest is in the learned order, the same command goes on", err=True)
        return 130
    judge.ended()
    return None


def _refuse_without_judge() -> None:
    context = click.get_current_context()
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name) if parameter.name in JUDGED else None
        if source is click.core.ParameterSource.COMMANDLINE:
            raise UsageError(f"{parameter.opts[0]} is for a judge; name one with --judge MODEL")
