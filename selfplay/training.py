"""Learns the rule set and the ranking weights from judged turns, by measuring them as a run does."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from selfplay.atomic import replacing
from selfplay.errors import UsageError
from selfplay.judge.folder import read_folder
from selfplay.judge.lessons import read_lessons
from selfplay.signals.measure import SIGNALS, default_scorer, measure, signal_versions
from selfplay.terminal import one_line

if TYPE_CHECKING:
    from filters.learning.learn import Judged


def read_judged(path: Path) -> pl.DataFrame:
    """Judged turns with their contexts, one row per turn.

    Args:
        path: A folder as `judge.folder` reads it, or a file of rows as `selfplay judge` and `selfplay annotate` write
            them (see `judge.lessons`).

    Raises:
        UsageError: A file is missing or not of this form.
    """
    return read_lessons(path) if path.is_file() else read_folder(path)


def read_signals(path: Path, table: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, object]]:
    """The table with signals kept earlier, and what measured them.

    Raises:
        UsageError: The file is not of this form, or lacks turns of the table.
    """
    try:
        signals, models = pl.read_parquet(path), json.loads(pl.read_parquet_metadata(path)["models"])
        lacking = len(table.join(signals, on="id", how="anti"))
    except (pl.exceptions.PolarsError, OSError, KeyError, ValueError) as error:
        raise UsageError(f"{path}: not measured signals ({error}); delete it to measure anew") from None
    if lacking:
        raise UsageError(f"{path} lacks {lacking} of {len(table)} turns; delete it to measure anew")
    return table.join(signals, on="id", how="left", maintain_order="left"), models


def measured(table: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, object]]:
    """The table with all signals, and what measured them."""
    from selfplay.signals.embedding import load_embedder

    scorer, template = default_scorer()
    try:
        embedder = load_embedder()
        table = measure(table, ("embedding", "likelihood"), embedder=embedder, scorer=scorer, template=template)
        return table, signal_versions(embedder, template)
    finally:
        scorer.close()


def with_signals(table: pl.DataFrame, kept: Path | None) -> tuple[pl.DataFrame, dict[str, object]]:
    """The table with all signals, from `kept` if that is there, else measured and put there; and what measured them."""
    if kept is not None and kept.exists():
        return read_signals(kept, table)
    table, models = measured(table)
    if kept is not None:
        columns = [name for names in SIGNALS.values() for name in names]
        with replacing(kept) as path:
            table.select("id", *columns).write_parquet(path, metadata={"models": json.dumps(models)})
    return table, models


def train(
    folder: Path,
    rules: Path | None,
    weights: Path | None,
    kept: Path | None,
    *,
    only: str | None = None,
    min_precision: Mapping[str, float] | None = None,
    apart: float = 0.2,
    seed: int = 0,
    ceiling: bool = True,
) -> None:
    """Learns what a path is given for, and prints how good the rules are.

    Args:
        folder: Judged turns, as `read_judged` takes them.
        rules: Where the rule set goes.
        weights: Where the ranking weights go.
        kept: Parquet of measured signals: taken from there if it exists, else put there. Measuring takes minutes,
            fitting seconds.
        only: The one rule set to learn; nothing is measured for `text` alone.
        min_precision: What rules are to prove, by label.
        apart: Share of the conversations kept out of learning, where rules prove it.
        ceiling: Whether to fit boosted trees on the same features for comparison.

    Raises:
        UsageError: Nothing to learn was named, a file cannot be read or written, or there is too little to learn from.
    """
    if rules is None and weights is None:
        raise UsageError("what to learn? Give -o FILE for the rules, --weights FILE or both")
    if find_spec("sklearn") is None:
        raise UsageError("training needs scikit-learn: pip install 'selfplay-turns[train]'")
    table = read_judged(folder)
    for path in (rules, weights, kept):  # measuring takes minutes: find out now
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise UsageError(f"{path}: cannot be written; give a file in a folder that is there")
    if rules is not None:
        with _one_line(folder):  # so is whether there is enough to learn from
            divided(table, "text", apart, seed)
    models: dict[str, object] = {}
    if weights is not None or only != "text":
        table, models = with_signals(table, kept)
    with _one_line(folder):
        if rules is not None:
            from filters.features import SETS
            from filters.learning import learn as rules_from
            from selfplay.trained_shown import show

            learned = rules_from.train(table, models, seed, min_precision or {}, apart, only)
            learned.save(rules)
            for name in [name for name in SETS if only is None and name not in learned.sets]:
                print(f"{name}: not learned, too few sampled turns have all its signals", file=sys.stderr)
            show(learned, _ceilings(table, apart, only, seed) if ceiling else {})
        if weights is not None:
            from rerank import learn as weights_from
            from rerank import save_weights

            save_weights(weights_from.train(table, measured_with=models), str(weights))


def divided(
    table: pl.DataFrame, only: str | None = None, apart: float = 0.0, seed: int = 0
) -> dict[str, tuple[Judged, Judged]]:
    """For each set that can be learned, the turns it is learned from and those kept apart, as `learn.divided` has them.

    Raises:
        ValueError: There are too few turns for any.
    """
    from filters.certify import kept_apart
    from filters.learning import learn

    judged = learn.read(table, seed)
    return learn.divided(judged, kept_apart(judged.groups, apart, seed), only)


def _ceilings(table: pl.DataFrame, apart: float, only: str | None, seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    from filters.learning.ceiling import ceiling

    sets = divided(table, only, apart, seed)
    return {name: ceiling(name, inside, seed) for name, (inside, _) in sets.items()}


@contextmanager
def _one_line(folder: Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{folder}: nothing can be learned from it: {one_line(error)}") from None
