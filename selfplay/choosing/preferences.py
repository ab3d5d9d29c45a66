"""Pairs of a better and a worse turn of one site, for preference training of a user simulator.

The chosen turn of a pair is the best selected one of its site; the rejected one is

    survivors   the worst turn that might have been selected and was not: both are a user's, one reacts better
    flagged     the surest example of each fault the rules found there: its label's lowest `p_genuine`

Never in a pair: a rejected turn that is blank or was cut at the token limit, one that equals the chosen turn, one that
scores no lower.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from rerank.diversity import same_text
from rerank.rank import merit
from selfplay.choosing.selection import UNBARRED
from selfplay.dataset import draw_name, flip, write_lines
from selfplay.results import Results, Tables
from selfplay.runs import Run

KINDS: Mapping[str, tuple[str, ...]] = {
    "survivors": ("survivors",),
    "flagged": ("flagged",),
    "both": ("survivors", "flagged"),
}
"""By what `--pairs` says."""


def write_pairs(run: Run, asked: str) -> int:
    """Writes `pairs.jsonl` with the `KINDS` asked for, atomically; returns the number of pairs."""
    parts = Results(run.folder, "run", run.record).parts()
    return write_lines(run.folder / "pairs.jsonl", (row for row, _ in pairs(parts, KINDS[asked])))


def pairs(
    parts: Iterable[Tables], kinds: Sequence[str], margin: float = 0.0
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """All pairs with the unknown columns of their conversations, in reading order within a part.

    Args:
        parts: Sites and turns, as `selfplay.results` gives them.
        margin: The scores of a pair differ by no less, and differ in any case.
    """
    for sites, turns in parts:
        turns = turns.filter(pl.col("selected").any().over("site_id")).with_columns(score=merit(turns.columns))
        contexts = {row["site_id"]: row for row in sites.iter_rows(named=True)}
        for rows in turns.sort("ordinal", "rank").partition_by("site_id", maintain_order=True):
            candidates = rows.to_dicts()
            best = next(turn for turn in candidates if turn["selected"])
            site = contexts[best["site_id"]]
            for kind in kinds:
                for worse in rejected(candidates, kind):
                    apart = best["score"] - worse["score"]
                    if apart > 0 and apart >= margin and same_text(worse["turn"]) != same_text(best["turn"]):
                        yield pair_row(site, best, worse, kind), json.loads(site["extra"] or "{}")


def rejected(candidates: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    """The turns of a site, given by rank, that a pair of this kind rejects."""
    usable = [turn for turn in candidates if turn["turn"].strip() and turn["finish_reason"] != "length"]
    if kind == "survivors":
        return [turn for turn in usable if turn["rejected_for"] in UNBARRED][-1:]
    surest: dict[str, Mapping[str, Any]] = {}
    for turn in usable:
        if turn["rejected_for"] == "flagged":
            known = surest.get(turn["label"])
            if known is None or _doubt(turn) < _doubt(known):
                surest[turn["label"]] = turn
    return list(surest.values())


def pair_row(
    site: Mapping[str, Any], better: Mapping[str, Any], worse: Mapping[str, Any], kind: str
) -> dict[str, Any]:  # fmt: skip
    """One line of `pairs.jsonl` in TRL's conversational preference form, roles flipped as in `chosen.jsonl`.

    Scores are what the site was ranked by, `p_genuine` times `groundedness`; `margin` is their difference.
    """
    return {
        "id": f"{site['site_id']}/{kind}/{draw_name(worse)}",
        "site_id": site["site_id"],
        "conversation_id": site["conversation_id"],
        "kind": kind,
        "prompt": flip(json.loads(site["messages"])),
        "chosen": [{"role": "assistant", "content": better["turn"]}],
        "rejected": [{"role": "assistant", "content": worse["turn"]}],
        "score_chosen": better["score"],
        "score_rejected": worse["score"],
        "margin": better["score"] - worse["score"],
        "rejected_label": worse["label"],
        "rejected_rule": worse["rule"],
        **{key: better[key] for key in ("model", "primed")},
    }


def _doubt(turn: Mapping[str, Any]) -> float:
    return 0.5 if turn["p_genuine"] is None else float(turn["p_genuine"])
