"""Files of judged, annotated or filtered turns as raters, and which of their rows are the same turn."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from filters.agreement import MISSING, Ratings
from filters.labels import PRECEDENCE
from selfplay.errors import UsageError
from selfplay.inputs.quarantine import Quarantine
from selfplay.inputs.turnrows import iter_turn_rows
from selfplay.judge.folder import TURNS, read_folder
from selfplay.terminal import one_line

CODES = {label.value: code for code, label in enumerate(PRECEDENCE)}
RULES = "rules"


@dataclass(frozen=True, slots=True)
class Rated:
    """One turn as one rater saw it; `label` and `grade` are codes, or `MISSING`."""

    id: str | None
    content: str
    conversation: str
    label: int
    grade: int


@dataclass(slots=True)
class Rater:
    """A person, a judge or a rule set, and what it said."""

    name: str
    source: str
    rated: list[Rated] = field(default_factory=list)

    @property
    def invalid(self) -> int:
        """Turns it gave no label."""
        return sum(one.label == MISSING for one in self.rated)


@dataclass(frozen=True, slots=True)
class Matched:
    """Ratings of the turns that at least two raters have, and what is not among them.

    Attributes:
        by: `id`, or `messages and turn`.
        unmatched: By rater, turns that no other rater has.
        repeated: By rater, further rows of a turn it had rated already; the first counts.
        differing: Rows of equal id whose text differs, so that they match nothing.
    """

    ratings: Ratings
    by: str
    unmatched: dict[str, int]
    repeated: dict[str, int]
    differing: int


def content_key(values: dict[str, Any]) -> str:
    """Hash of context and turn, equal for equal ones in whatever shape they came."""
    return _hash([values["history"], values["answer"], values["turn"]])


def read_raters(paths: Sequence[str]) -> tuple[list[Rater], Quarantine]:
    """The raters of all files, with names that differ, and the rows that could not be read.

    Raises:
        UsageError: A file cannot be read, has no labels, or has one that the rubric has not; fewer than two raters.
    """
    twice = [path for path, count in Counter(str(Path(path).resolve()) for path in paths).items() if count > 1]
    if twice:
        raise UsageError(f"{twice[0]} is given twice; it would agree with itself")
    quarantine = Quarantine()
    raters = [rater for path in paths for rater in _read(path, quarantine)]
    if len(raters) < 2:
        raise UsageError(f"only one rater, {raters[0].name!r}: give a second file, or one with several judges")
    names = Counter(rater.name for rater in raters)
    seen: Counter[str] = Counter()
    for rater in raters:
        if names[rater.name] > 1:
            rater.name = f"{Path(rater.source).stem}:{rater.name}"
        seen[rater.name] += 1
        if seen[rater.name] > 1:
            rater.name = f"{rater.name} ({seen[rater.name]})"
    return raters, quarantine


def _read(path: str, quarantine: Quarantine) -> list[Rater]:
    if (Path(path) / TURNS).is_file():
        return [_shipped(path)]
    raters: dict[str, Rater] = {}
    count = 0
    for table in iter_turn_rows(path, quarantine):
        for values in table.iter_rows(named=True):
            count += 1
            row = json.loads(values["row"])
            where = f"{path}, row {count} of those with a turn"
            if "label" not in row:
                raise UsageError(f"{where}: no label; label the turns with selfplay judge, filter or annotate first")
            name = rater_of(row, Path(path).stem)
            rater = raters.setdefault(name, Rater(name, path))
            rater.rated.append(_rated(values, row, where))
    if not raters:
        raise UsageError(f"{path}: no row that could be used; each needs a conversation, a turn and a label")
    return list(raters.values())


def _shipped(folder: str) -> Rater:
    """A folder in the form of filters/judged."""
    rater = Rater(Path(folder).resolve().name, folder)
    for row in read_folder(Path(folder)).iter_rows(named=True):
        label = CODES.get(row["label"], MISSING)
        grade = row["grade"] if row["grade"] in range(4) else MISSING
        rater.rated.append(Rated(row["id"], content_key(row), row["context"], label, grade))
    return rater


def rater_of(row: dict[str, Any], stem: str) -> str:
    """Who gave the row its label: the last that left a mark (see `panel.without_marks`), else the file."""
    if "rule" in row:
        return RULES
    named = row.get("annotator") or row.get("judge")
    return str(named) if named else stem


def _rated(values: dict[str, Any], row: dict[str, Any], where: str) -> Rated:
    label, grade = row["label"], row.get("groundedness")
    if label is not None and (not isinstance(label, str) or label not in CODES):
        raise UsageError(f"{where}: label {one_line(label, 60)!r} is none of {', '.join(CODES)}")
    # `selfplay rank` calls a number from 0 to 1 groundedness; a grade is a whole number, and not the rules'.
    if type(grade) is not int or not 0 <= grade <= 3 or "rule" in row or label is None:
        grade = MISSING
    return Rated(
        values["id"],
        content_key(values),
        conversation_of(values, row),
        MISSING if label is None else CODES[label],
        grade,
    )


def conversation_of(values: dict[str, Any], row: dict[str, Any]) -> str:
    """The conversation a turn belongs to: the row's own id of it, else a hash of how it begins.

    Sites of one conversation begin alike, and so do several answers to one prompt, which are no more independent.
    """
    for name in ("conversation_id", "context"):
        if isinstance(row.get(name), str):
            return str(row[name])
    return _hash((values["history"] or [values["answer"]])[0])


def match(raters: Sequence[Rater]) -> Matched:
    """Puts rows of the same turn beside each other: by id where every rater has ids of its own for all, else by text.

    Raises:
        UsageError: No turn was rated by two.
    """
    by_id = all(_distinct(rater) for rater in raters) and _shared(raters, "id") >= _shared(raters, "content")
    differing = 0
    texts: dict[str, str] = {}
    turns: dict[str, dict[int, Rated]] = {}
    repeated = dict.fromkeys((rater.name for rater in raters), 0)
    for number, rater in enumerate(raters):
        for one in rater.rated:
            key = one.id if by_id and one.id is not None else one.content
            if texts.setdefault(key, one.content) != one.content:
                differing += 1
                continue
            if number in turns.setdefault(key, {}):
                repeated[rater.name] += 1
                continue
            turns[key][number] = one
    shared = [found for found in turns.values() if len(found) > 1]
    if not shared:
        reason = f"{differing} rows have equal ids but different texts" if differing else "neither ids nor texts are"
        raise UsageError(f"no turn is in two of the files ({reason}); give files made from the same turns")
    unmatched = {
        rater.name: sum(len(found) == 1 and number in found for found in turns.values())
        for number, rater in enumerate(raters)
    }
    names = sorted({_any(found).conversation for found in shared})
    index = {name: position for position, name in enumerate(names)}
    ratings = Ratings(
        tuple(rater.name for rater in raters),
        _codes([[found[i].label if i in found else MISSING for i in range(len(raters))] for found in shared]),
        _codes([[found[i].grade if i in found else MISSING for i in range(len(raters))] for found in shared]),
        _codes([index[_any(found).conversation] for found in shared]),
    )
    return Matched(ratings, "id" if by_id else "messages and turn", unmatched, repeated, differing)


def _any(found: dict[int, Rated]) -> Rated:
    return next(iter(found.values()))


def _codes(values: list[Any]) -> Any:
    return np.array(values, dtype=np.intp)


def _distinct(rater: Rater) -> bool:
    ids = [one.id for one in rater.rated]
    return None not in ids and len(set(ids)) == len(ids)


def _shared(raters: Iterable[Rater], name: str) -> int:
    counts = Counter(key for rater in raters for key in {getattr(one, name) for one in rater.rated})
    return sum(count > 1 for count in counts.values())


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:24]
