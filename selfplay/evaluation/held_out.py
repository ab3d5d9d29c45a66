"""Filters and ranks judged turns with what was learned from other conversations, or from other generators."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

import filters
import rerank
from rerank.evaluation import CrossValidation, assign_folds
from rerank.learn import WRITTEN
from rerank.learn import train as learn_weights

Say = Callable[[str], None]
POOL = "pool"
"""What a turn is ranked within: its site of one conversation, sampled and written ones apart."""
SURVIVAL = ("genuine", "p_genuine")


def with_pools(table: pl.DataFrame) -> pl.DataFrame:
    """Adds `pool` and `sampled`."""
    sampled = pl.col("source") != WRITTEN
    kind = pl.when(sampled).then(pl.lit("sampled")).otherwise(pl.lit(WRITTEN))
    return table.with_columns(
        sampled.alias("sampled"), pl.concat_str("context", "site_id", kind, separator=" ").alias(POOL)
    )


def filtered(table: pl.DataFrame, rules: filters.Rules) -> pl.DataFrame:
    """Adds `genuine` and `p_genuine` as the rules say; `label` stays the judge's."""
    return table.with_columns(filters.label(table.drop("label"), rules).select(SURVIVAL))


def unfiltered(table: pl.DataFrame) -> pl.DataFrame:
    """The same columns where there are no rules: everything survives, with equal chances."""
    return table.with_columns(pl.lit(True).alias("genuine"), pl.lit(None, pl.Float64).alias("p_genuine"))


def cross_filtered(table: pl.DataFrame, fold: pl.Series, seed: int, say: Say) -> pl.DataFrame:
    """`filtered` by rules and calibration learned anew for each fold, from the conversations of the others.

    Raises:
        ValueError: There is too little to learn rules from.
    """
    from filters.learning import learn

    parts = []
    numbers = sorted(fold.unique().to_list())
    for count, number in enumerate(numbers, 1):
        started = time.monotonic()
        rules = learn.train(table.filter(fold != number), {}, seed)
        say(f"fold {count} of {len(numbers)}: rules and calibration learned in {time.monotonic() - started:.0f} s")
        parts.append(filtered(table.with_row_index("_row").filter(fold == number), rules))
    return pl.concat(parts).sort("_row").drop("_row")


def cross_validated(table: pl.DataFrame, folds: int, seed: int, say: Say) -> tuple[pl.DataFrame, CrossValidation]:
    """Every turn filtered and ranked by what its conversation did not teach, and the means to do so again.

    Raises:
        ValueError: There is too little to learn from.
    """
    fold = assign_folds(table["context"], folds, seed)
    judged = cross_filtered(with_pools(table), fold, seed, say)
    crossing = CrossValidation(judged, fold, POOL)
    return crossing.rank().with_columns(fold), crossing


def taken_as_is(table: pl.DataFrame, rules: filters.Rules, weights: rerank.Weights) -> pl.DataFrame:
    """Every turn filtered and ranked by rules and weights that are there already."""
    return rerank.rank(filtered(with_pools(table), rules), weights, POOL)


@dataclass(frozen=True, slots=True)
class Unseen:
    """Turns of one generator, ranked by what only written turns and the other generators taught.

    Attributes:
        ranked: Its turns, with the columns of `rerank.rank`.
        fits: How often all was learned anew: no more conversations are left out at once than a fold has.
        no_rules: Why no rules could be learned without it; None if they were.
    """

    ranked: pl.DataFrame
    fits: int
    no_rules: str | None


def without_source(table: pl.DataFrame, source: str, folds: int, seed: int, say: Say) -> Unseen:
    """Ranks one generator's turns with weights, and rules where there is enough to learn them from, that saw none of
    its turns and nothing of the conversations they stand in."""
    from filters.learning import learn

    table = with_pools(table)
    mine = table["source"] == source
    contexts = table.filter(mine)["context"]
    fits = max(1, math.ceil(contexts.n_unique() * folds / table["context"].n_unique()))
    started = time.monotonic()
    parts, no_rules = [], None
    for number, held in enumerate(_chunks(contexts, fits, seed)):
        others = table.filter(~mine & ~pl.col("context").is_in(held))
        here = table.with_row_index("_row").filter(mine & pl.col("context").is_in(held))
        if no_rules is None:
            try:
                rules = learn.train(others, {}, seed)
            except ValueError as error:
                if number:
                    raise
                no_rules = str(error)
        here = unfiltered(here) if no_rules else filtered(here, rules)
        parts.append(rerank.rank(here, learn_weights(others), POOL))
    say(f"without {source}: learned anew, fits: {fits}, in {time.monotonic() - started:.0f} s")
    return Unseen(pl.concat(parts).sort("_row").drop("_row"), fits, no_rules)


def _chunks(contexts: pl.Series, count: int, seed: int) -> list[list[str]]:
    part = assign_folds(contexts, count, seed)
    return [contexts.filter(part == number).unique().to_list() for number in range(count)]
