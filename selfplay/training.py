"""Learns the rule set and the ranking weights from judged turns, by measuring them as a run does."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from selfplay.atomic import replacing
from selfplay.errors import UsageError
from selfplay.signals.measure import SIGNALS, default_scorer, measure, signal_versions
from selfplay.tables import context_columns

CONTEXTS, TURNS = "contexts.jsonl", "judged_turns.jsonl"


def read_judged(folder: Path) -> pl.DataFrame:
    """Judged turns with their contexts, one row per turn.

    Args:
        folder: Holds `contexts.jsonl` (`id, messages`, ending with the assistant's) and `judged_turns.jsonl`
            (`id, context, source, text, label, groundedness`, and `finish_reason` where sampled). Or a file of rows
            as `selfplay judge` and `selfplay annotate` write them (see `judge.lessons`).

    Raises:
        UsageError: A file is missing or not of this form.
    """
    if folder.is_file():
        from selfplay.judge.lessons import read_lessons

        return read_lessons(folder)
    try:
        contexts = {row["id"]: row for row in map(json.loads, read_lines(folder / CONTEXTS))}
        rows = [
            {
                "id": turn["id"],
                "context": turn["context"],
                "site_id": turn["context"],
                "source": turn["source"],
                "turn": turn["text"],
                "label": turn["label"],
                "grade": turn["groundedness"],
                "finish_reason": turn.get("finish_reason"),
                "messages": json.dumps(contexts[turn["context"]]["messages"], ensure_ascii=False),
                **context_columns(contexts[turn["context"]]["messages"]),
            }
            for turn in map(json.loads, read_lines(folder / TURNS))
        ]
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{folder}: not judged turns as filters/judged has them ({error!r})") from None
    return pl.DataFrame(rows, infer_schema_length=None)


def read_lines(path: Path) -> list[str]:
    """The lines of a JSONL file. Only newlines end one: text may hold other separators, such as U+2028."""
    return path.read_text("utf-8").removesuffix("\n").split("\n")


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


def train(folder: Path, rules: Path | None, weights: Path | None, kept: Path | None) -> None:
    """Learns what a path is given for.

    Args:
        rules: Where the rule set goes.
        weights: Where the ranking weights go.
        kept: Parquet of measured signals: taken from there if it exists, else put there. Measuring takes minutes,
            fitting seconds.
    """
    from filters import learn as rules_from
    from rerank import learn as weights_from
    from rerank import save_weights

    if rules is None and weights is None:
        raise UsageError("what to learn? Give --rules FILE, --weights FILE or both")
    table = read_judged(folder)
    for path in (rules, weights, kept):  # measuring takes minutes: find out now
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise UsageError(f"{path}: cannot be written; give a file in a folder that is there")
    if kept is not None and kept.exists():
        table, models = read_signals(kept, table)
    else:
        table, models = measured(table)
        if kept is not None:
            columns = [name for names in SIGNALS.values() for name in names]
            with replacing(kept) as path:
                table.select("id", *columns).write_parquet(path, metadata={"models": json.dumps(models)})
    if rules is not None:
        rules_from.train(table, models).save(rules)
    if weights is not None:
        save_weights(weights_from.train(table, measured_with=models), str(weights))
