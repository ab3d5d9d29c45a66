"""User turns in memory: labelled, ranked and chosen step by step, then exported. Each step gives new `Turns`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import polars as pl

from selfplay import ranking, summary, tables
from selfplay.api.calling import Source, context, mistakes
from selfplay.api.folder import Folder, folder
from selfplay.api.given import Given, Rows, sites_and_turns
from selfplay.dataset import chosen_row, write_dataset
from selfplay.errors import UsageError
from selfplay.execution import versions
from selfplay.filtering import Filtering, chosen_rules, filter_table
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.turnrows import left_out, read_turn_rows
from selfplay.judging import file_hash
from selfplay.keeping import keeping
from selfplay.learned import load_weights
from selfplay.results import Results
from selfplay.runs import Parts, Run
from selfplay.signals.measure import SCORED, SIGNALS, STATE

FILES = ("out", "quarantine", "max_bad", "rejects")
"""Options of `selfplay filter` and `rank` about files, of which there are none here."""
JUDGES = (
    "judge", "judge_mode", "judge_top", "base_url", "concurrency", "max_cost", "price_in", "price_out", "max_tokens",
    "timeout", "cache", "retry_invalid", "explain_id",
)  # fmt: skip
"""Options of `selfplay rank` that only the verb has: what a judge is paid for is to be on disk."""
RANKED = (*ranking.ADDED, "part_cross", "rank_explanation", *ranking.CHOSEN)


@dataclass(frozen=True, slots=True)
class States:
    """The scorer's hidden states after a layer, too long to show: of the table's rows, and of the rejected if known."""

    layer: int | None
    turns: pl.Series
    rejected: pl.Series | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Turns:
    """User turns at their sites, with what is known of them; made by `selfplay.turns` and `Conversations.sample`.

    Attributes:
        table: One row per turn, keyed by `site_id, model, temperature, sample`: `turn, finish_reason` and what else
            sampling tells; signals once measured; `label, genuine, p_genuine, rule, evidence, rule_set` once filtered;
            `groundedness, rank, selected, rejected_for` once ranked.
        sites: One row per site: `site_id, ordinal, conversation_id, messages` (JSON text) and `extra`, the unknown
            columns.
        rejected: Turns that `filter` took out, with `rejected_for`.
        notes: What the last step says of what it did, as the verb would print it.
        folder: The run folder, where `sample` was given one.
    """

    table: pl.DataFrame
    sites: pl.DataFrame
    rejected: pl.DataFrame = field(default_factory=pl.DataFrame)
    notes: tuple[str, ...] = ()
    folder: Path | None = None
    _settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    _states: States | None = None

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        chosen = f", {self.table['selected'].sum():,} selected" if "selected" in self.table.columns else ""
        return f"<{len(self):,} turns at {len(self.sites):,} sites{chosen}>"

    def filter(self, **options: Any) -> Turns:
        """Labels the turns, as `selfplay filter` does, and takes out those that are not wanted.

        Without options all turns stay: `rank` chooses none that a rule found a fault in, and pairs are made with them.

        Args:
            options: Those of `selfplay filter`: rules, tiers, drop, keep, keep_above, explain, generator …

        Raises:
            TypeError: There is no such option.
            SelfplayError: Rules that cannot be used, signals that were asked for by name and cannot be measured.
        """
        given = context("filter", ["-"], options, FILES).params
        own = {each.name: given[each.name] for each in fields(Filtering) if each.name not in ("keeping", "rejects")}
        how = Filtering(keeping=keeping(given["drop"], given["keep"], given["above"]), **own)
        layer = chosen_rules(how.rules, how.tiers)[0].layer
        of = (layer, how.scorer_model, self._select.get("cross_encoder"))
        table = self._measured(self.table.drop("explanation", strict=False), *of)
        found, notes = filter_table(table, how)
        stays = pl.col("rejected_for").is_null()
        gone = _plain(found.filter(~stays))
        if not self.rejected.is_empty():
            gone = pl.concat([self.rejected, gone], how="diagonal_relaxed")
        rules = None if how.rules in ("text", "full") else how.rules
        select = self._select | {
            "rules": how.rules or "default",
            "rules_hash": file_hash(rules, "filters", "default_rules.json"),
            "scorer_model": how.scorer_model,
        }
        policy = {"keep": sorted(how.keeping.labels), "keep_above": how.keeping.above}
        settings = {**self._settings, "select": select}
        if not how.keeping.everything:
            settings["policy"] = policy
        kept = found.filter(stays).drop("rejected_for")
        states = None
        if STATE in found.columns:
            of_gone = found.filter(~stays)[STATE] if self.rejected.is_empty() else None
            states = States(layer, kept[STATE], of_gone)
        return replace(self, table=_plain(kept), rejected=gone, notes=tuple(notes), _settings=settings, _states=states)

    def rank(self, select: int | None = 1, **options: Any) -> Turns:
        """Orders the turns of each site by how grounded they are, and chooses among them, as `selfplay rank` does.

        Args:
            select: Choose up to so many different turns per site; None only ranks.
            options: Those of `selfplay rank`: weights, tiers, diversity, min_groundedness, allow_truncated, explain …
                What concerns a judge only the verb has.

        Raises:
            TypeError: There is no such option.
            SelfplayError: Weights that cannot be used, signals that were asked for by name and cannot be measured.
        """
        given = context("rank", ["-"], {**options, "select": select}, (*FILES, *JUDGES)).params
        how = ranking.Ranking(**{each.name: given[each.name] for each in fields(ranking.Ranking)})
        asked = {each.name: given[each.name] for each in fields(ranking.Choosing)}
        choosing = None if select is None else ranking.Choosing(**asked)
        if choosing is None and any(asked.values()):
            raise UsageError("diversity, min_groundedness and allow_truncated choose: give select=1 too")
        layer = load_weights(how.weights).layer
        of = (layer, how.scorer_model, how.cross_encoder)
        table, gone = self._measured(self.table, *of), self.rejected
        if not gone.is_empty():  # their scores are for pairs and rewards; they are not ranked among the others
            table, gone = _scored(table, self._measured(gone, *of, rejected=True), how)
        found, _, notes = ranking.rank_table(table, how, choosing)
        chosen = self._select | {
            "weights": how.weights or "default",
            "weights_hash": file_hash(how.weights, "rerank", "default_weights.json"),
            "scorer_model": how.scorer_model,
            "cross_encoder": how.cross_encoder,
            **asked,
        }
        states = States(layer, found[STATE]) if STATE in found.columns else None
        return replace(
            self,
            table=_plain(found),
            rejected=gone,
            notes=tuple(notes),
            _settings={**self._settings, "select": chosen},
            _states=states,
        )

    def chosen(self) -> list[dict[str, Any]]:
        """The chosen turns as rows of `chosen.jsonl`: `messages` with the turn at the end, `prompt` and `completion`
        with the roles flipped, what is known of it, and unknown columns.

        Raises:
            UsageError: Nothing was chosen yet.
        """
        self._must_be_chosen()
        sites = {row["site_id"]: row for row in self.sites.iter_rows(named=True)}
        turns = self.table.filter("selected").sort("ordinal", "rank")
        return [chosen_row(sites[turn["site_id"]], turn, self._several) for turn in turns.iter_rows(named=True)]

    def save(self, out: Source) -> Folder:
        """Writes a folder as `selfplay run` does, which export, report and view read.

        Turns that `filter` took out are in it, so that pairs can be made with them.

        Args:
            out: A new or empty folder.

        Raises:
            UsageError: The turns are not filtered and ranked, or the folder is not empty.
        """
        self._must_be_chosen()
        out = Path(out)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"{out} is there and not empty; name another folder")
        table = self._with_rejected()
        tiers = [tier for tier in SIGNALS if any(table[name].count() for name in SIGNALS[tier] if name in table)]
        if self._states is not None:
            tiers.append("state")
        select = {"tiers": ["text", *tiers]} | {k: v for k, v in self._select.items() if v is not None}
        sample = self._settings.get("sample") or {"source": "rows in memory"}
        run = Run(out, sample, select)
        try:
            run.write("sites", 0, self.sites)
            run.write("sampled", 0, table.select(name for name in tables.TURNS))
            run.write("turns", 0, table)
            write_dataset(run)
            name = select.get("rules", "default")
            rules, _ = chosen_rules(None if name == "default" else name, "auto")
            more = {"policy": self._settings["policy"]} if "policy" in self._settings else {}
            run.save(status="done", versions=versions(), summary=summary.summarize(run, rules, []), **more)
        finally:
            run.close()
        return folder(out)

    def export(self, out: Source, format: str | Sequence[str] = "prompt-completion", **options: Any) -> dict[str, Any]:
        """Writes the forms that trainers read; see `Folder.export`.

        Raises:
            UsageError: The turns are not filtered and ranked; else as there.
        """
        with self._saved() as saved:
            return saved.export(out, format, **options)

    def report(self, out: Source = "report.html", **options: Any) -> Path:
        """Writes a page about the turns; see `Folder.report`. Raises UsageError where they are not ranked."""
        with self._saved() as saved:
            return saved.report(out, **options)

    @contextmanager
    def _saved(self) -> Iterator[Folder]:
        with tempfile.TemporaryDirectory(prefix="selfplay-") as place:
            saved = self.save(Path(place, "turns"))
            try:
                yield saved
            except UsageError as error:  # which tells where, and nobody knows of that place
                raise UsageError(str(error).replace(str(saved.path), "the turns")) from None

    @property
    def _select(self) -> dict[str, Any]:
        return dict(self._settings.get("select") or {})

    @property
    def _several(self) -> bool:
        return (self._select.get("select") or 1) > 1

    def _measured(
        self, table: pl.DataFrame, layer: int | None, scorer: str | None, cross: str | None, rejected: bool = False
    ) -> pl.DataFrame:
        """Turns with their contexts and those signals that the models asked for have measured.

        Args:
            rejected: The table is `rejected`, which keeps its `rejected_for`.
        """
        ranked = [name for name in RANKED if not (rejected and name == "rejected_for")]
        table = tables.with_context(table.drop(ranked, strict=False), self.sites)
        states = self._states
        # A column that is known for some rows only would not be measured for the others.
        if states and states.layer == layer and (states.rejected is not None or self.rejected.is_empty()):
            table = table.with_columns(states.rejected if rejected else states.turns)
        if scorer != self._select.get("scorer_model"):
            table = table.drop([name for tier in SCORED for name in SIGNALS[tier]], strict=False)
        if cross != self._select.get("cross_encoder"):
            table = table.drop(SIGNALS["cross"], strict=False)
        return table

    def _must_be_chosen(self) -> None:
        for name, step in (("label", "filter()"), ("selected", "rank(select=1)")):
            if name not in self.table.columns or (len(self) and not self.table[name].count()):
                raise UsageError(f"the turns are not chosen yet: {step} comes first, as in turns.filter().rank()")

    def _with_rejected(self) -> pl.DataFrame:
        if self.rejected.is_empty():
            return self.table
        why = pl.when(pl.col("genuine")).then(pl.col("rejected_for")).otherwise(pl.lit("flagged"))
        gone = self.rejected.with_columns(rejected_for=why, selected=pl.lit(False))
        return pl.concat([self.table, gone], how="diagonal_relaxed").sort("ordinal", maintain_order=True)


def _plain(table: pl.DataFrame) -> pl.DataFrame:
    return table.drop(*tables.CONTEXT, STATE, strict=False)


def _scored(
    table: pl.DataFrame, gone: pl.DataFrame, how: ranking.Ranking
) -> tuple[pl.DataFrame, pl.DataFrame]:  # fmt: skip
    """Turns with their signals, and turns taken out with their `groundedness`; the models measure both at once."""
    why = gone["rejected_for"]
    both = pl.concat([table, gone.drop("rejected_for")], how="diagonal_relaxed")
    found, _, _ = ranking.rank_table(both, how)
    ranks = (*RANKED, *(name for name in found.columns if name.startswith("part_")))
    scored = _plain(found.tail(len(gone))).with_columns(rejected_for=why, rank=pl.lit(None, pl.Int64))
    return found.head(len(table)).drop(*ranks, strict=False), scored


def turns(rows: Rows) -> Turns:
    """User turns that something else wrote, to be filtered and ranked.

    Args:
        rows: A path, or mappings with `messages` that end with the assistant's and one `turn`; those with equal
            messages, or one `site_id`, are candidates at the same site. `conversation_id`, `model`, `temperature`,
            `sample`, labels and signals are taken over where rows have them; other columns are kept in `extra`.

    Raises:
        UsageError: There is nothing at the path, or rows of one `site_id` have different messages.
        TooManyBadRows: No row is good; others that are not are told of in `notes`.
    """
    given = Given(rows)
    with mistakes(), Quarantine() as bad:
        read = read_turn_rows(given.path, bad)
        bad.check()
    sites, table = sites_and_turns(read)
    settings = {} if given.in_memory else {"sample": {"source": given.path}}
    return Turns(table, sites, notes=tuple(left_out(bad)), _settings=settings)


def of_results(results: Results) -> Turns:
    """The turns of a finished folder; of a run with all of its columns."""
    if results.verb == "run":
        parts = Parts(results.folder)
        kind = "turns" if results.record.get("select") is not None else "sampled"
        read = [(parts.read("sites", number), parts.read(kind, number)) for number in parts.parts(kind)]
    else:
        read = list(results.parts())
    sites = pl.concat([tables.SITES.to_frame(), *(sites for sites, _ in read)], how="diagonal")
    table = pl.concat([tables.TURNS.to_frame(), *(turns for _, turns in read)], how="diagonal_relaxed")
    record = results.record
    settings = {name: record[name] for name in ("sample", "select", "policy") if record.get(name) is not None}
    notes = [f"{name:30}{value}" for name, value in summary.lines(record["summary"])] if results.verb == "run" else []
    if bad := (record.get("input") or {}).get("bad_rows"):
        notes.append(f"{bad:,} bad rows left out: {json.dumps(record['input']['bad_by_reason'])}")
    if failed := record.get("failed"):
        notes.append(f"{failed:,} sites failed")
    table, sites = table.sort("ordinal", maintain_order=True), sites.sort("ordinal")
    return Turns(table, sites, notes=tuple(notes), folder=results.folder, _settings=settings)
