"""Has a language model order the best turns of each site anew, after the learned ranking, for those who can pay.

Only order changes: the judged turns of a site trade places among themselves, and where the judge gave no valid answer
the learned order stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from filters.labels import Label
from rerank.rank import merit
from selfplay.errors import EngineError, SelfplayError
from selfplay.interrupt import Interrupt
from selfplay.judge.asking import Asker, Question, about_pair, about_turn
from selfplay.judge.budget import BudgetSpent
from selfplay.judge.client import Reply
from selfplay.judge.panel import conversation
from selfplay.judge.verdict import Verdict

Mode = Literal["pointwise", "pairwise"]
COLUMNS = {
    "pointwise": pl.Schema({"judge_grade": pl.Int64(), "judge_label": pl.String()}),
    "pairwise": pl.Schema({"judge_wins": pl.Float64()}),
}
POINTS = {"first": 1.0, "equal": 0.5, "second": 0.0}
"""Of the turn that stands first."""


@dataclass(frozen=True, slots=True)
class Contest:
    """The turns of one site that are judged: different texts, best first by the learned ranking."""

    messages: list[Any]
    turns: tuple[str, ...]


class JudgeRanking:
    """Reorders ranked tables by what a judge says.

    Pointwise, each turn gets a label and a grade by the rubric; follow_up goes before other labels, then the higher
    grade. Pairwise, each two turns are compared in both orders, since judges favour a place (Zheng et al. 2023, arXiv
    2306.05685): a turn's wins are the opponents it beats, half a win where the orders disagree or one has no valid
    answer. All meet all equally often, and there the order by wins is that of Bradley and Terry's model too (Ford
    1957). Ties keep the learned order.

    Args:
        asker: Of one judge.
        top: Different turns judged at each site.
    """

    def __init__(self, asker: Asker, mode: Mode = "pointwise", top: int = 4) -> None:
        self.asker = asker
        self.mode: Mode = mode
        self.top = top
        self.interrupted = False
        self.columns = tuple(COLUMNS[mode])
        self._lines: list[str] = []

    def __call__(self, table: pl.DataFrame) -> pl.DataFrame:
        """The table with a new `rank` and the judge's columns; rows keep their order.

        Args:
            table: As `rerank.rank` gives it, with `messages` or `history` and `answer`. Flagged rows, copies and
                blank turns are not judged, nor is a turn without another one to trade places with.
        """
        contests = self.contests(table)
        questions = {site: self._questions(contest) for site, contest in contests.items()}
        with Interrupt() as interrupt:
            replies = iter(self.asker.replies([q for asked in questions.values() for q in asked], interrupt))
            self.interrupted = interrupt.asked
        verdicts = {site: [_verdict(next(replies)) for _ in asked] for site, asked in questions.items()}
        found = {site: self._marks(contest, verdicts[site]) for site, contest in contests.items()}
        judged = reordered(table, found, COLUMNS[self.mode])
        self._tell(table, judged, contests, verdicts)
        return judged

    def contests(self, table: pl.DataFrame) -> dict[str, Contest]:
        """The sites that have two different turns or more to be judged, in order of appearance."""
        sites: dict[str, Contest] = {}
        for (site,), rows in table.filter(may_be_judged(table)).group_by("site_id", maintain_order=True):
            turns = rows.sort("rank")["turn"].unique(maintain_order=True)[: self.top].to_list()
            if len(turns) > 1:
                sites[str(site)] = Contest(conversation(_context(rows)), tuple(turns))
        return sites

    def _questions(self, contest: Contest) -> list[Question]:
        [judge] = self.asker.judges
        if self.mode == "pointwise":
            return [about_turn(judge, contest.messages, turn) for turn in contest.turns]
        return [about_pair(judge, contest.messages, *pair) for pair in ordered_pairs(contest.turns)]

    def _marks(self, contest: Contest, verdicts: Sequence[Verdict]) -> dict[str, tuple[Any, ...]]:
        """By turn the values of the judge's columns, for the turns that it said anything valid about."""
        if self.mode == "pairwise":
            return {turn: (count,) for turn, count in wins(contest.turns, verdicts).items()}
        marked = zip(contest.turns, verdicts, strict=True)
        return {turn: (said.groundedness, said.label) for turn, said in marked if said.label is not None}

    def _tell(
        self,
        before: pl.DataFrame,
        after: pl.DataFrame,
        contests: Mapping[str, Contest],
        verdicts: Mapping[str, Sequence[Verdict]],
    ) -> None:
        self.asker.tally.turns += sum(len(contest.turns) for contest in contests.values())
        sites = before["site_id"].n_unique()
        moved = after.filter((pl.col("rank") == 1) & (before["rank"] != 1)).height
        line = (
            f"judged {self.mode} at {len(contests):,} of {sites:,} sites (those with two turns or more to choose from)"
        )
        self._lines.append(f"{line}: another turn comes first at {moved:,}")
        if self.mode == "pairwise":
            pairs = [pair for said in verdicts.values() for pair in zip(said[::2], said[1::2], strict=True)]
            whole = [pair for pair in pairs if all(verdict.better for verdict in pair)]
            agree = sum(POINTS[str(a.better)] + POINTS[str(b.better)] == 1 for a, b in whole)
            self._lines.append(f"{len(whole):,} of {len(pairs):,} pairs compared both ways, {agree:,} with one result")
        missing = sum(verdict.said is None for said in verdicts.values() for verdict in said)
        if missing:
            self._lines.append(f"{missing:,} questions have no valid answer: there the learned order stands")

    def report(self) -> Iterator[str]:
        """What the judge changed, said and cost, one line each."""
        yield from self._lines
        yield from self.asker.report()

    def ended(self) -> None:
        """Raises what a call that did not judge everything has to say; what it wrote is in the learned order there.

        Raises:
            BudgetSpent: The limit was reached.
            SelfplayError: Questions without an answer.
        """
        asker, rest = self.asker, "the rest is in the learned order"
        if asker.failed:
            raise EngineError(f"{asker.failed}; {rest}, the same command goes on")
        if asker.stopped:
            raise BudgetSpent(f"{asker.stopped}; {rest}, the same command or a higher limit goes on")
        if asker.tally.unanswered:
            raise SelfplayError(
                f"{asker.tally.unanswered:,} questions got no answer; {rest}, the same command asks again"
            )


def may_be_judged(table: pl.DataFrame) -> pl.Series:
    """Which rows may change places: survivors that are more than a copy and not blank, and not `rejected_for` anything
    where that column is."""
    genuine = pl.col("genuine").fill_null(True) if "genuine" in table.columns else pl.lit(True)
    if "rejected_for" in table.columns:
        genuine = genuine & pl.col("rejected_for").is_null()
    spoken = pl.col("turn").fill_null("").str.strip_chars() != ""
    return table.select((genuine & ~pl.col("copy") & spoken).alias("_may"))["_may"]


def ordered_pairs(turns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each two turns, in both orders one after the other."""
    for index, left in enumerate(turns):
        for right in turns[index + 1 :]:
            yield left, right
            yield right, left


def wins(turns: Sequence[str], verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Opponents that each turn beats, with halves for undecided ones; without turns of which no pair was decided.

    Args:
        verdicts: On `ordered_pairs(turns)`.
    """
    points = dict.fromkeys(turns, 0.0)
    decided: set[str] = set()
    answers = iter(verdicts)
    for left, right in list(ordered_pairs(turns))[::2]:
        forth, back = next(answers).better, next(answers).better
        share = 0.5
        if forth is not None and back is not None:
            share = (POINTS[forth] + 1 - POINTS[back]) / 2
            decided |= {left, right}
        points[left] += share
        points[right] += 1 - share
    return {turn: count for turn, count in points.items() if turn in decided}


def reordered(
    table: pl.DataFrame, marks: Mapping[str, Mapping[str, tuple[Any, ...]]], columns: pl.Schema
) -> pl.DataFrame:
    """The table with the judge's columns, and the marked turns of each site in their places by mark, then old rank.

    Turns that trade places trade their merits too (`judged_merit`, see `rerank.rank.merit`), so that whatever chooses
    by merit follows the judge.

    Args:
        marks: By site and turn the values of `columns`.
    """
    rank = table["rank"].to_list()
    merits = table.select(merit(table.columns).alias("merit"))["merit"].to_list()
    values: list[tuple[Any, ...]] = [(None,) * len(columns)] * len(table)
    places: dict[str, list[int]] = {}
    for index, (site, turn, may) in enumerate(zip(table["site_id"], table["turn"], may_be_judged(table), strict=True)):
        if may and turn in marks.get(site, {}):
            values[index] = marks[site][turn]
            places.setdefault(site, []).append(index)
    for rows in places.values():
        free = sorted((rank[row], merits[row]) for row in rows)
        best_first = sorted(rows, key=lambda row: (*_worth(values[row]), rank[row]))
        for row, (place, worth) in zip(best_first, free, strict=True):
            rank[row], merits[row] = place, worth
    added = [pl.Series(name, [mark[at] for mark in values], kind) for at, (name, kind) in enumerate(columns.items())]
    return table.with_columns(pl.Series("rank", rank, pl.Int64), pl.Series("judged_merit", merits, pl.Float64), *added)


def _worth(mark: tuple[Any, ...]) -> tuple[float, ...]:
    """Lower is better: a follow_up before the rest and then the grade; or the wins."""
    if len(mark) == 1:
        return (-mark[0],)
    grade, label = mark
    return (label != Label.FOLLOW_UP, -grade)


def _verdict(reply: Reply | None) -> Verdict:
    return reply.entry.verdict if reply else Verdict(error="not asked")


def _context(rows: pl.DataFrame) -> dict[str, Any]:
    return rows.head(1).to_dicts()[0]
