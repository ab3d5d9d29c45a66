"""The `filter` verb's work: rows of a file → missing signals measured → labelled → those that stay written back.

Batch by batch, so that memory does not grow with the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import polars as pl

from filters import label
from filters.explain import brief
from filters.features import Features, compute
from filters.labels import Label
from filters.rules import Rules
from selfplay.errors import UsageError
from selfplay.filter_statistics import Statistics
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.source import keep_apart
from selfplay.inputs.turnrows import iter_turn_rows, left_out, take_from_rows, turn_row_writer
from selfplay.keeping import Keeping
from selfplay.learned import load_rules
from selfplay.signals.measure import NUMBERS, SCORED, STATE
from selfplay.signals.tiers import CHOICES, Measurer, SignalModels
from selfplay.signals.writer import scorer_for

ADDED = ("label", "genuine", "p_genuine", "rule", "evidence", "rule_set")
CARRIED = pl.Schema(
    {
        **dict.fromkeys(NUMBERS, pl.Float64()),
        "conversation_id": pl.String(),
        "model": pl.String(),
    }
)
"""What filtering takes from the rows themselves where they have it."""


@dataclass(frozen=True, slots=True)
class Filtering:
    """What is to be done with the rows.

    Attributes:
        rules: `text` or `full` of the shipped rules, or a file; None takes what is at hand of the shipped ones.
        tiers: As `--tiers`.
        explain: Adds the column `explanation`.
        rejects: Where rows go that do not stay; None is beside `out`.
        generator: Model that wrote the turns, to tell whether turns of it were judged.
        primed: The turns were asked for by instruction.
        scorer_model: Scores turns; None is the shipped one, `self` what wrote the turns.
    """

    rules: str | None = None
    tiers: str = "auto"
    keeping: Keeping = field(default_factory=Keeping)
    explain: bool = False
    rejects: str | None = None
    generator: str | None = None
    primed: bool = False
    scorer_model: str | None = None


def filter_file(source: str, out: str, how: Filtering, quarantine: Quarantine) -> Iterator[str]:
    """Labels the turns of `source` and writes the rows to `out`; yields lines about what was done.

    Raises:
        UsageError: A file that cannot be read or written, rules that cannot be used, options that contradict.
        SelfplayError: A tier that was asked for by name and cannot be measured.
        TooManyBadRows: More bad rows than allowed; neither `out` nor the rejects are written then, unless stdout.
    """
    rules, tiers = chosen_rules(how.rules, how.tiers)
    rejects = rejects_beside(source, out, how, quarantine)
    statistics = Statistics(_asked_for_text(how))
    columns = (*ADDED, "explanation") if how.explain else ADDED
    refuse_idle_scorer(how, rules, tiers)
    found = (take_from_rows(table, CARRIED) for table in iter_turn_rows(source, quarantine))
    scorer, rows = scorer_for(how.scorer_model, found)
    with ExitStack() as stack:
        measurer = stack.enter_context(measuring(rules, tiers, scorer))
        keep = stack.enter_context(turn_row_writer(out, columns))
        # Entered last and so finished first: no row is gone from OUT before the rejects are safe.
        reject = stack.enter_context(turn_row_writer(rejects, (*columns, "rejected_for"))) if rejects else None
        for table in map(measurer, rows):
            table, features = labelled(table, rules, how)
            statistics.add(table, features)
            keep(table.filter(pl.col("rejected_for").is_null()))
            if reject:
                reject(table.filter(pl.col("rejected_for").is_not_null()))
        quarantine.check()
        refuse_uncalibrated(how, statistics)
    yield from measurer.notes
    yield from statistics.lines(rules, how.generator, how.primed, rejects)
    yield from left_out(quarantine)


def filter_table(table: pl.DataFrame, how: Filtering) -> tuple[pl.DataFrame, list[str]]:
    """Labels turns that are in memory already: all of them, `rejected_for` being null for those that stay.

    Args:
        table: As `selfplay.tables.with_context` makes it, with whatever signals are known.

    Returns:
        The table with signals and labels, `STATE` too where it was measured; and lines about what was done.

    Raises:
        UsageError, SelfplayError: As `filter_file`.
    """
    rules, tiers = chosen_rules(how.rules, how.tiers)
    refuse_idle_scorer(how, rules, tiers)
    scorer, tables = scorer_for(how.scorer_model, [table])
    with measuring(rules, tiers, scorer) as measurer:
        measured = measurer(next(tables))
    found, features = labelled(measured, rules, how)
    statistics = Statistics(_asked_for_text(how))
    statistics.add(found, features)
    refuse_uncalibrated(how, statistics)
    rejects = None if how.keeping.everything else "rejected"
    lines = [*measurer.notes, *statistics.lines(rules, how.generator, how.primed, rejects)]
    return found.with_columns(measured[STATE]) if STATE in measured.columns else found, lines


def measuring(rules: Rules, tiers: str, scorer: str | None) -> Measurer:
    """Measures what these rules read and rows lack, where `tiers` asks for it."""
    return Measurer(
        CHOICES[tiers],
        {"rules": rules.models},
        optional=tiers == "auto",
        reads=rules.tiers,
        models=SignalModels(scorer),
        layer=rules.layer,
    )


def labelled(table: pl.DataFrame, rules: Rules, how: Filtering) -> tuple[pl.DataFrame, Features]:
    """Measured turns with `ADDED`, `rejected_for` and `explanation` where it is asked for, and their features."""
    features = compute(table)
    table = how.keeping.rejected_for(label(table, rules, features).drop(STATE, strict=False))
    if how.explain:
        table = table.with_columns(explanation(table, rules, features))
    return table, features


def refuse_idle_scorer(how: Filtering, rules: Rules, tiers: str) -> None:
    """Raises UsageError where a scorer is named and nothing is scored."""
    if how.scorer_model and not {*SCORED} & rules.tiers & {*CHOICES[tiers]}:
        raise UsageError("--scorer-model: nothing is scored with these --rules and --tiers; leave it out")


def refuse_uncalibrated(how: Filtering, statistics: Statistics) -> None:
    """Raises UsageError where rows are kept by a `p_genuine` that no row has."""
    if how.keeping.above is not None and statistics.rows and not statistics.calibrated:
        raise UsageError("--keep-above: these rules have no calibration, so that p_genuine is not known")


def chosen_rules(rules: str | None, tiers: str) -> tuple[Rules, str]:
    """The rules, and which tiers to measure for them; `text` and `full` name sets of the shipped file.

    Raises:
        UsageError: They cannot be used, or `tiers` says something else.
    """
    fixed = {"text": "text", "full": "all"}.get(rules or "")
    if fixed is None:
        return load_rules(rules), tiers
    if tiers not in ("auto", fixed):
        raise UsageError(f"--rules {rules} and --tiers {tiers} contradict each other; leave --tiers out")
    loaded = load_rules(None)
    return loaded.only("text") if rules == "text" else loaded, fixed


def _asked_for_text(how: Filtering) -> str | None:
    """The option because of which signals are not measured."""
    if how.rules == "text":
        return "--rules text"
    return f"--tiers {how.tiers}" if how.tiers in ("text", "text+embedding") else None


def rejects_beside(source: str, out: str, how: Filtering, quarantine: Quarantine) -> str | None:
    """Where the rows go that do not stay; None where all do.

    Raises:
        UsageError: Nothing is dropped, nowhere is known to put them, or the place is taken.
    """
    if how.keeping.everything:
        if how.rejects:
            raise UsageError("--rejects: nothing is rejected without --drop, --keep or --keep-above")
        return None
    nowhere = out == "-" or (os.path.exists(out) and not os.path.isfile(out))
    if how.rejects is None and nowhere:
        raise UsageError("rejected rows have no place beside stdout: give --rejects FILE, or -o OUT")
    rejects = how.rejects or f"{out}.rejects.jsonl"
    keep_apart(source, rejects, "--rejects")
    taken = {"-o": None if nowhere else out, "--quarantine": quarantine.path}
    for option, path in taken.items():
        if path and os.path.realpath(path) == os.path.realpath(rejects):
            raise UsageError(f"--rejects {rejects}: that is where {option} writes; give another file")
    if rejects == "-":
        raise UsageError("--rejects -: rejected rows go into a file")
    return rejects


def explanation(table: pl.DataFrame, rules: Rules, features: Features) -> pl.Series:
    """The column `explanation`: for each row the short form of `filters.explain`, as a list of strings."""
    texts = [
        brief(rules.sets[name], features, row, Label(given), rule, why)
        for row, (name, given, rule, why) in enumerate(
            table.select("rule_set", "label", "rule", "evidence").iter_rows()
        )
    ]
    return pl.Series("explanation", texts, pl.List(pl.String))
