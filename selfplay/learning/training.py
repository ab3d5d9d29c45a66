"""Learns the rule set from judged turns, by measuring them as a run does; `learning.ranker` learns the weights."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from filters.features import STATE
from filters.probe import LAYER, layer_at_depth
from selfplay.atomic import replacing
from selfplay.errors import UsageError
from selfplay.inputs.source import keep_apart
from selfplay.judge.folder import CONTEXTS, TURNS, read_folder
from selfplay.judge.lessons import read_lessons
from selfplay.signals.cross import load_cross_encoder
from selfplay.signals.embedding import load_embedder
from selfplay.signals.measure import PARTS, SCORED, SIGNALS, default_scorer, expected_versions, measure, signal_versions
from selfplay.signals.tiers import SignalModels
from selfplay.signals.wording import with_wording
from selfplay.terminal import one_line

if TYPE_CHECKING:
    from filters.learning.learn import Judged


def read_judged(path: Path) -> pl.DataFrame:
    """Judged turns with their contexts and the wording signals, one row per turn.

    Args:
        path: A folder as `judge.folder` reads it, or a file of rows as `selfplay judge` and `selfplay annotate` write
            them (see `judge.lessons`).

    Raises:
        UsageError: A file is missing or not of this form.
    """
    return with_wording(read_lessons(path) if path.is_file() else read_folder(path))


def read_signals(path: Path, table: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The table with signals kept earlier, and what measured them.

    Raises:
        UsageError: The file is not of this form, or lacks turns of the table.
    """
    try:
        signals, models = pl.read_parquet(path), json.loads(pl.read_parquet_metadata(path)["models"])
        lacking = len(table.join(signals, on="id", how="anti"))
    except KeyError:  # somebody else's Parquet, which it would be a pity to delete
        raise UsageError(f"{path}: not measured signals; name another file, or one that is not there yet") from None
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise UsageError(f"{path}: not measured signals ({error}); name another file, or delete this one") from None
    if lacking:
        raise UsageError(f"{path} lacks {lacking} of {len(table)} turns; delete it to measure anew")
    return table.join(signals, on="id", how="left", maintain_order="left"), models


def measured(table: pl.DataFrame, tiers: Collection[str], models: SignalModels) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The table with the signals of these tiers, and what measured them."""
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        if "embedding" in tiers:
            found["embedder"] = load_embedder()
        if {*SCORED} & {*tiers}:
            found["scorer"], found["template"] = default_scorer(models.scorer)
            stack.callback(found["scorer"].close)
            if "state" in tiers and found["scorer"].layers:
                found["layer"] = layer_at_depth(found["scorer"].layers)
            elif "state" in tiers:  # of an architecture whose layers cannot be found: the next best
                tiers = {*tiers, "likelihood"} - {"state"}
        if "cross" in tiers and models.cross_encoder:
            found["cross_encoder"] = load_cross_encoder(models.cross_encoder)
        table = measure(table, tiers, **found)
    versions = signal_versions(found.get("embedder"), found.get("template"), found.get("cross_encoder"))
    return table, versions | ({STATE: {"layer": found["layer"]}} if "layer" in found else {})


def with_signals(
    table: pl.DataFrame,
    kept: Path | None,
    models: SignalModels | None = None,
    tiers: Collection[str] = ("embedding", "state"),
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The table with signals, from `kept` what is there, else measured and put there; and what measured them.

    That is the record of `signal_versions`, and under `turn_state` the layer that was read.

    Args:
        tiers: Those that are wanted, beside a cross-encoder's if one is named.

    Raises:
        UsageError: The file cannot be used, or was measured with other models than those named.
    """
    models = models or SignalModels()
    tiers = {*tiers, "cross"} if models.cross_encoder else {*tiers}
    named = {tier: expected_versions(tier, models.named[tier]) for tier in tiers & models.named.keys()}
    versions: dict[str, Any] = {}
    if kept is not None and kept.exists():
        table, versions = read_signals(kept, table)
        tiers = {tier for tier in tiers if not {*SIGNALS[tier]} <= {*table.columns}}
        for tier in sorted({*named, *tiers}):  # what is named, or measured beside what is there
            part, expected = PARTS[tier], named.get(tier) or expected_versions(tier)
            if part in versions and versions[part] != expected[part]:
                raise UsageError(
                    f"{kept} was measured with the {part.replace('_', '-')} {versions[part].get('model')!r}, not "
                    f"{models.named.get(tier) or expected[part]['model']!r}; name another file with --signals, or "
                    "delete it to measure anew"
                )
    if not tiers:
        return table, versions
    table, found = measured(table, tiers, models)
    versions |= found
    if kept is not None:
        columns = [name for names in SIGNALS.values() for name in names if name in table.columns]
        with replacing(kept) as path:
            table.select("id", *columns).write_parquet(path, metadata={"models": json.dumps(versions)})
    return table, versions


def refuse_unwritable(judged: Path, out: Path, kept: Path | None) -> None:
    """Raises UsageError for files that could not be written, or only over what is needed: measuring takes minutes, so
    find out before."""
    for path in (out, kept):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise UsageError(f"{path}: cannot be written; give a file in a folder that is there")
    if kept is not None and kept.resolve() == out.resolve():
        raise UsageError(f"-o {out}: that is the file of --signals; give another place")
    for source in (judged, judged / CONTEXTS, judged / TURNS):
        if source.is_file():
            keep_apart(str(source), out, "-o")
            if kept is not None:
                keep_apart(str(source), kept, "--signals")


def train(
    folder: Path,
    rules: Path,
    kept: Path | None,
    *,
    models: SignalModels | None = None,
    only: str | None = None,
    min_precision: Mapping[str, float] | None = None,
    apart: float = 0.2,
    seed: int = 0,
    ceiling: bool = True,
) -> None:
    """Learns the rules and prints how good they are.

    Args:
        folder: Judged turns, as `read_judged` takes them.
        rules: Where the rule set goes.
        kept: Parquet of measured signals: taken from there if it exists, else put there. Measuring takes minutes,
            fitting seconds.
        models: What measures.
        only: The one rule set to learn; nothing is measured for `text` alone.
        min_precision: What rules are to prove, by label.
        apart: Share of the conversations kept out of learning, where rules prove it.
        ceiling: Whether to fit boosted trees on the same features for comparison.

    Raises:
        UsageError: A file cannot be read or written, or there is too little to learn from.
    """
    if find_spec("sklearn") is None:
        raise UsageError("training needs scikit-learn: pip install 'selfplay-turns[train]'")
    if only == "text" and models is not None and models.named:
        raise UsageError("--scorer-model: the set `text` measures nothing; leave one out")
    table = read_judged(folder)
    refuse_unwritable(folder, rules, kept)
    with one_line_for(folder):  # whether there is enough to learn from, before measuring takes minutes
        divided(table, "text", apart, seed)
    versions: dict[str, Any] = {}
    if only != "text":
        table, versions = with_signals(table, kept, models)
    with one_line_for(folder):
        from filters.features import SETS
        from filters.learning import learn as rules_from
        from selfplay.learning.shown import show

        layer = versions.pop(STATE, {}).get("layer") or LAYER
        learned = rules_from.train(table, versions, seed, min_precision or {}, apart, only, layer)
        learned.save(rules)
        for name in [name for name in SETS if only is None and name not in learned.sets]:
            print(f"{name}: not learned, too few sampled turns have all its signals", file=sys.stderr)
        if STATE in table.columns and "full" in learned.sets and learned.layer is None:
            print(
                "full: too few sampled turns have the scorer's hidden state; learned from likelihoods", file=sys.stderr
            )
        show(learned, _ceilings(table, apart, only, seed) if ceiling else {})


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
    return {name: ceiling(inside, seed) for name, (inside, _) in sets.items()}


@contextmanager
def one_line_for(folder: Path) -> Iterator[None]:
    """What learning from `folder` raises as ValueError, as a user's mistake."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{folder}: nothing can be learned from it: {one_line(error)}") from None
