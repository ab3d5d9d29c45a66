"""Sites and candidates as the browser of a page takes them: a light index, and chunks that it opens when looked at.

Everything is JSON in gzip; a page holds it as base64, so that no text in it can be taken for markup.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from selfplay.judge.sheet import content_of
from selfplay.report.tally import outcome
from selfplay.terminal import one_line

CHUNK_SITES = 64
CHUNK_CHARS = 400_000
"""A chunk ends when it has that many sites or characters."""
TITLE = 90
EXTRA = 2_000
"""Characters of an unknown column that are shown."""
CODED = ("label", "rule", "model", "temperature", "outcome")
"""Columns of turns that the browser filters by."""
SHOWN = ("sample", "finish_reason", "genuine", "p_genuine", "evidence", "groundedness", "rank", "turn")


class Codes(dict[str, int]):
    """Numbers for names, in the order in which they are met."""

    def of(self, name: str | None) -> int:
        """-1 for None."""
        return -1 if name is None else self.setdefault(name, len(self))


@dataclass(slots=True)
class Packer:
    """Takes parts, gives chunks; `index` tells of all that was packed.

    Attributes:
        groups: Columns of the input to filter by.
        starts: Number of the first site of each chunk.
    """

    groups: Sequence[str] = ()
    starts: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    codes: dict[str, Codes] = field(default_factory=dict)
    turns: dict[str, list[int]] = field(default_factory=dict)
    sites: dict[str, list[int]] = field(default_factory=dict)
    _chunk: list[dict[str, Any]] = field(default_factory=list)
    _chars: int = 0
    _done: int = 0

    def add(self, sites: pl.DataFrame, turns: pl.DataFrame) -> Iterator[bytes]:
        """Packs whole sites; yields the chunks that became full."""
        candidates = _by_site(turns)
        for site in sites.iter_rows(named=True):
            shown = self._site(site, candidates.get(site["site_id"], []))
            text_size = len(site["messages"]) + sum(len(turn["turn"]) for turn in shown["turns"])
            if self._chunk and self._chars + text_size > CHUNK_CHARS:
                yield self._packed()
            self._chunk.append(shown)
            self._chars += text_size
            if len(self._chunk) >= CHUNK_SITES:
                yield self._packed()

    def rest(self) -> Iterator[bytes]:
        """The last chunk, if anything is left for one."""
        if self._chunk:
            yield self._packed()

    def index(self) -> bytes:
        """What the list and the filters of the browser need to know of all sites and turns."""
        names = {column: list(codes) for column, codes in self.codes.items()}
        sites = {"ids": self.ids, "titles": self.titles, "counts": self.counts, "groups": self.sites}
        return packed({"names": names, "starts": self.starts, "sites": sites, "turns": self.turns})

    def _site(self, site: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        messages = json.loads(site["messages"])
        extra = json.loads(site["extra"] or "{}")
        asked = next((m for m in reversed(messages) if m["role"] == "user"), messages[-1])
        title = candidates[0]["turn"] if len(candidates) == 1 else asked.get("content")
        self.ids.append(site["site_id"])
        self.titles.append(one_line(title or "", TITLE))
        self.counts.append(len(candidates))
        for name in self.groups:
            value = extra.get(name)
            told = str(value) if isinstance(value, str | int | float) else None
            self.sites.setdefault(name, []).append(self._code(name, told))
        for turn in candidates:
            coded = {**turn, "temperature": _temperature(turn)}
            for name in CODED:
                self.turns.setdefault(name, []).append(self._code(name, coded[name]))
            score = turn["groundedness"]
            self.turns.setdefault("groundedness", []).append(-1 if score is None else round(100 * score))
        return {
            "id": site["site_id"],
            "messages": [{"role": str(m.get("role")), "text": content_of(m)} for m in messages],
            "next": site["next_user"],
            "extra": {key: _told(value) for key, value in extra.items()},
            "turns": [_turn(turn) for turn in candidates],
        }

    def _code(self, column: str, name: str | None) -> int:
        return self.codes.setdefault(column, Codes()).of(name)

    def _packed(self) -> bytes:
        chunk, self._chunk, self._chars = self._chunk, [], 0
        self.starts.append(self._done)
        self._done += len(chunk)
        return packed(chunk)


def packed(value: Any) -> bytes:
    """JSON in gzip. As ASCII, so that half a surrogate pair comes through as it is."""
    return gzip.compress(json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode(), 6, mtime=0)


def quoted(evidence: str | None) -> str | None:
    """The words of the turn that `filters.evidence` quotes, without the mark of a cut."""
    if not evidence or not evidence.endswith('"'):
        return None
    at = evidence.find('; "')
    return evidence[at + 3 : -1].removesuffix("…") or None if at >= 0 else None


def _by_site(turns: pl.DataFrame) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    table = turns.with_columns(
        pl.col("turn").fill_null(""), pl.col("p_genuine", "groundedness").fill_nan(None), outcome=outcome()
    ).sort("ordinal", "rank", "sample", "temperature", nulls_last=True)
    for row in table.select("site_id", *CODED, *SHOWN).iter_rows(named=True):
        found.setdefault(row["site_id"], []).append(row)
    return found


def _turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    shown = {**turn, "temperature": _temperature(turn), "quote": quoted(turn["evidence"])}
    for name in ("p_genuine", "groundedness"):
        shown[name] = None if shown[name] is None else round(shown[name], 4)
    return {name: value for name, value in shown.items() if value is not None and name != "site_id"}


def _temperature(turn: Mapping[str, Any]) -> str | None:
    return None if turn["temperature"] is None else f"T={turn['temperature']:g}"


def _told(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= EXTRA else f"{text[:EXTRA]}…"
