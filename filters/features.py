"""Measurable facts about a candidate turn, tier by tier: the registry of names, ranges and what each one catches.

The text tier is computed here from query, answer, history and turn. The embedding and likelihood tiers are columns
that someone else measured (see `SIGNALS`); a value that is absent is NaN, and no test on NaN ever holds. Beside them
goes what the scorer's hidden state was at a turn, which no rule can test (see `probe`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from filters.labels import Label
from filters.text import figures, form, language, matches, overlap, stance
from filters.text.context import ANSWER_LIMIT, TURN_LIMIT, Batch, read_turns

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Feature:
    """One number per turn.

    Attributes:
        tier: `text`, `embedding`, `likelihood`, or `score` of a rule set.
        low, high: The range of its values.
        says: Words for it in a sentence: "<says> is at least 0.9".
        catches: What it is for.
    """

    name: str
    tier: str
    low: float
    high: float
    says: str
    catches: str


CHUNK_ROWS, CHUNK_CHARS = 2048, 2_000_000
"""Rows and characters looked at together, which bounds the memory that is needed beside the table."""
MATCHED_ROWS = 16_384
"""Turns in which patterns are sought together."""

STATE = "turn_state"
"""Column of the scorer's hidden state at a turn, d numbers each: the tier `state`, which no test can read."""

_COUNT = float("inf")

SIGNALS = (
    Feature("cos_query", "embedding", -1, 1, "cosine to the last user message", "prompt_restatement when high"),
    Feature("cos_answer", "embedding", -1, 1, "cosine to the answer", "off_topic when low"),
    Feature("cos_answer_best", "embedding", -1, 1, "cosine to the closest sentence of the answer", "ties, copies"),
    Feature(
        "cos_margin",
        "embedding",
        -2,
        2,
        "cosine to the answer's closest sentence less the question's",
        "who it is tied to",
    ),
    Feature("answer_pmi", "likelihood", -_COUNT, _COUNT, "answer PMI per token (nats)", "off_topic when low"),
    Feature("answer_pmi_sum", "likelihood", -_COUNT, _COUNT, "answer PMI (nats)", "no tie when low"),
    Feature("answer_pmi_share", "likelihood", 0, 1, "share of tokens the answer explains", "off_topic when low"),
    Feature(
        "role_ratio",
        "likelihood",
        -_COUNT,
        _COUNT,
        "likelihood as the user's over the assistant's (nats per token)",
        "identity_leakage",
    ),
    Feature("copy_gain", "likelihood", -_COUNT, _COUNT, "gain from the conversation (nats per token)", "copies"),
    Feature("fluency", "likelihood", -_COUNT, 0, "fluency on its own (nats per token)", "malformed when low"),
    Feature("mean_logprob", "likelihood", -_COUNT, 0, "fluency in context (nats per token)", "malformed when low"),
    Feature(
        "min_logprob", "likelihood", -_COUNT, 0, "log-likelihood of the least likely token (nats)", "malformed when low"
    ),
)

TEXT = tuple(
    Feature(name, "text", low, high, says, catches)
    for name, low, high, says, catches in (*form.FEATURES, *overlap.FEATURES, *figures.FEATURES, *stance.FEATURES)
)

SCORES = (
    *(Feature(f"score_{label}", "score", 0, 1, f"learned score of {label}", label) for label in Label),
    Feature("p_genuine", "score", 0, 1, "calibrated probability of a follow-up", "anything else when low"),
)
"""What a rule set adds to the features (`RuleSet.prepare`); its rules may test them."""

FEATURES: dict[str, Feature] = {feature.name: feature for feature in (*TEXT, *SIGNALS, *SCORES)}
SETS: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "full": ("text", "embedding", "state", "likelihood"),
}
"""The rule sets there are, and the tiers that their rules and scores may read."""


@dataclass(frozen=True, slots=True)
class Features:
    """Features of n turns.

    Attributes:
        values: One float64 array of shape (n,) per name; NaN where unknown.
        english: Boolean array (n,): whether models that know little but English can judge the row.
        states: Hidden states of the scorer, float32, shape (n, d), a row all NaN where unknown; None where all are.
    """

    values: dict[str, NDArray[np.float64]]
    english: NDArray[np.bool_]
    states: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.english)

    def matrix(self, names: tuple[str, ...]) -> NDArray[np.float64]:
        """Columns in the order of `names`, shape (n, len(names))."""
        return np.column_stack([self.values[name] for name in names])

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Features:
        """The same features for some of the rows."""
        states = None if self.states is None else self.states[rows]
        return Features({name: column[rows] for name, column in self.values.items()}, self.english[rows], states)

    def only(self, tiers: tuple[str, ...]) -> Features:
        """The same rows as if only these tiers had been measured."""
        unknown = np.full(len(self), np.nan)
        known = {name: column if FEATURES[name].tier in tiers else unknown for name, column in self.values.items()}
        return Features(known, self.english, self.states if "state" in tiers else None)

    def plus(self, columns: dict[str, NDArray[np.float64]]) -> Features:
        """The same rows with more columns."""
        return Features(self.values | columns, self.english, self.states)

    @classmethod
    def concat(cls, parts: list[Features]) -> Features:
        """The rows of all parts, one after another; at least one part.

        Raises:
            ValueError: Their states differ in length.
        """
        return cls(
            {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values},
            np.concatenate([part.english for part in parts]),
            _joined(parts),
        )


def _joined(parts: list[Features]) -> NDArray[np.float32] | None:
    widths = {part.states.shape[1] for part in parts if part.states is not None}
    if not widths:
        return None
    if len(widths) > 1:
        raise ValueError(f"`{STATE}` has {' and '.join(map(str, sorted(widths)))} numbers a turn; one scorer has one")
    unknown = np.full((1, widths.pop()), np.nan, dtype=np.float32)
    return np.concatenate(
        [np.repeat(unknown, len(part), axis=0) if part.states is None else part.states for part in parts]
    )


def compute(table: pl.DataFrame) -> Features:
    """Text features of every row, and the signal columns that are there.

    Args:
        table: Columns `query, answer, history, turn`, optionally `finish_reason`, signals and `turn_state`.

    Signals and states of rows that are not English are dropped: those models do not know the language, the text tier
    decides.

    Raises:
        ValueError: A context column is missing, or states are not lists of equally many numbers.
    """
    missing = [name for name in ("answer", "history", "turn") if name not in table.columns]
    if missing:
        raise ValueError(f"the table has no column `{missing[0]}`; filters need query, answer, history and turn")
    values = {feature.name: np.empty(len(table)) for feature in TEXT}
    english = np.empty(len(table), dtype=np.bool_)
    for begin, batch in _batches(table):
        rows = slice(begin, begin + len(batch))
        english[rows] = language.english(batch)
        for part in (form, overlap, figures, stance):
            for name, column in part.measure(batch).items():
                values[name][rows] = column
    for feature in SIGNALS:
        if feature.name in table.columns:
            signal = table[feature.name].cast(float).fill_null(float("nan")).to_numpy()
            values[feature.name] = np.where(english & np.isfinite(signal), signal, np.nan)
        else:
            values[feature.name] = np.full(len(table), np.nan)
    return Features(values, english, _states(table, english) if STATE in table.columns else None)


def _states(table: pl.DataFrame, english: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    import polars as pl

    column = table[STATE]
    if column.dtype == pl.Array:
        column = column.arr.to_list()
    if column.dtype == pl.Null:
        return None
    if column.dtype != pl.List or not (column.dtype.inner or pl.Null()).is_numeric():  # type: ignore[attr-defined]
        raise ValueError(f"`{STATE}` must be a list of numbers in each row, not {column.dtype}")
    lengths = column.list.len().fill_null(0)
    widths = set(lengths.unique().to_list()) - {0}
    if not widths:
        return None
    if len(widths) > 1:
        raise ValueError(f"`{STATE}` has {min(widths)} numbers in one row and {max(widths)} in another")
    given = (lengths > 0).to_numpy()
    states = np.full((len(table), widths.pop()), np.nan, dtype=np.float32)
    states[given] = column.filter(given).explode().cast(pl.Float32).to_numpy().reshape(-1, states.shape[1])
    states[~(english & np.isfinite(states).all(axis=1))] = np.nan
    return states


def _batches(table: pl.DataFrame) -> Iterator[tuple[int, Batch]]:
    """The rows in order, some at a time, and where each batch begins. Patterns are sought in many turns at once."""
    import polars as pl

    turn = pl.min_horizontal(pl.col("turn").str.len_bytes(), TURN_LIMIT).fill_null(0)
    answer = pl.min_horizontal(pl.col("answer").str.len_bytes(), ANSWER_LIMIT).fill_null(0)
    history = pl.col("history").list.eval(pl.element().str.len_bytes().clip(0, ANSWER_LIMIT)).list.sum().fill_null(0)
    sizes = table.select(turn=turn, row=turn + answer + history)
    for first, last in _chunks(sizes["turn"].to_list(), MATCHED_ROWS):
        turns = read_turns(table["turn"][first:last].to_list())
        matched = matches.find(turns)
        for begin, end in _chunks(sizes["row"][first:last].to_list(), CHUNK_ROWS):
            found = {name: column[begin:end] for name, column in matched.items()}
            yield first + begin, _read(turns[begin:end], table[first + begin : first + end], found)


def _chunks(sizes: list[int], rows: int) -> Iterator[tuple[int, int]]:
    """Bounds of slices that hold a bounded number of rows and, but for a single row, of characters."""
    begin = held = 0
    for row, size in enumerate(sizes):
        if row > begin and (held + size > CHUNK_CHARS or row - begin >= rows):
            yield begin, row
            begin, held = row, 0
        held += size
    if begin < len(sizes):
        yield begin, len(sizes)


def _read(turns: list[str], table: pl.DataFrame, matched: dict[str, NDArray[np.float64]]) -> Batch:
    reasons = table["finish_reason"].to_list() if "finish_reason" in table.columns else [None] * len(table)
    return Batch.read(turns, table["answer"].to_list(), table["history"].to_list(), reasons, matched)
