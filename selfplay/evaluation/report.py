"""All figures of an evaluation as one JSON object; an estimate is `[value, low, high]`, null where undefined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from rerank.evaluation import Bootstrap, CrossValidation, Estimate
from rerank.evaluation.bootstrap import estimate
from rerank.evaluation.curves import ALL, best_of
from rerank.evaluation.figures import Selection, Turns, order
from rerank.evaluation.order import auc_of
from rerank.weights import TIER_SIGNALS
from selfplay.evaluation.held_out import POOL, Unseen
from selfplay.evaluation.scores import GROUNDEDNESS, OURS, orders, scores

RESAMPLES = 2000


def turns_of(ranked: pl.DataFrame) -> Turns:
    """The judge's side of a ranked table."""
    return Turns.of(ranked, POOL, "context")


def selection_of(ranked: pl.DataFrame, seed: int) -> dict[str, Any]:
    """Share genuine of the selected turn, by number of candidates and score, with paired differences."""
    turns, named = turns_of(ranked), scores(ranked)
    bootstrap = Bootstrap(turns.conversations, RESAMPLES, seed)
    ns, reach = grid(ranked)
    selection = Selection(turns, named, ns, bootstrap)
    names = (*named, "random", "oracle")
    return {
        **described(ranked),
        "n": [*ns, "all"],
        "sites_with_n": reach,
        "curves": {name: [each.rounded() for each in selection.curve(name)] for name in names},
        "selected": {name: selection.share(name).rounded() for name in names},
        "minus": {name: selection.minus(OURS, name).rounded() for name in names if name not in (OURS, "oracle")},
        "ratio_random": selection.ratio(OURS, "random").rounded(),
        "ratio_oracle": selection.ratio(OURS, "oracle").rounded(),
        "kept": kept(ranked, bootstrap),
    }


def described(ranked: pl.DataFrame) -> dict[str, Any]:
    """How much was judged."""
    return {
        "turns": len(ranked),
        "conversations": ranked["context"].n_unique(),
        "sites": ranked[POOL].n_unique(),
        "genuine": round(float(turns_of(ranked).genuine.mean()), 4),
    }


def grid(ranked: pl.DataFrame) -> tuple[list[int], list[int]]:
    """The numbers of candidates to look at, as far as half of the sites have so many: each to 8, then ever wider;
    and how many sites have each."""
    sizes = ranked.group_by(POOL).len()["len"].to_numpy()
    most = int(np.quantile(sizes, 0.5, method="higher"))
    wide = [int(2 ** (power / 2)) for power in range(7, 64)]
    ns = [n for n in (*range(1, 9), *wide) if n <= most]
    return ns, [int((sizes >= n).sum()) for n in ns]


def kept(ranked: pl.DataFrame, bootstrap: Bootstrap) -> dict[str, Any]:
    """What a run would keep, which takes survivors that are not cut only: share of sites, and genuine among them."""
    turns = turns_of(ranked)
    whole = (ranked["genuine"] & ~ranked["cut"]).to_numpy()
    score = np.where(whole, -ranked["rank"].to_numpy().astype(np.float64), -np.inf)
    hit = best_of(turns.sites, score, (turns.genuine & whole).astype(np.float64), (ALL,))
    any_left = best_of(turns.sites, whole.astype(np.float64), whole.astype(np.float64), (ALL,))
    drawn = bootstrap.means(np.hstack([any_left, hit]), turns.site_conversations)
    with np.errstate(invalid="ignore", divide="ignore"):
        genuine = estimate(drawn[:, 1] / drawn[:, 0])
    return {"sites": estimate(drawn[:, 0]).rounded(), "genuine": genuine.rounded()}


def order_of(ranked: pl.DataFrame, seed: int) -> dict[str, Any]:
    """How well each score orders these turns, and each generator's."""
    turns = turns_of(ranked)
    bootstrap = Bootstrap(turns.conversations, RESAMPLES, seed)
    named = orders(ranked)
    return {**described(ranked), "scores": {name: rounded(order(turns, s, bootstrap)) for name, s in named.items()}}


def rounded(estimates: Mapping[str, Estimate]) -> dict[str, list[float | None]]:
    """Estimates for JSON."""
    return {name: each.rounded() for name, each in estimates.items()}


def ablation_of(ranked: pl.DataFrame, crossing: CrossValidation, sampled: pl.Series, seed: int) -> dict[str, Any]:
    """What is lost when the weights are learned without a signal, or a tier; the filter stays as it is.

    Args:
        ranked: The sampled turns, ranked with all signals.
        sampled: Flags of the rows of the crossing's table that these are.

    Returns:
        By signal, and by tier: `selected` (share genuine without it) and `auc_near`, and what all signals have more
        than that, `selected_lost` and `auc_lost`, paired.
    """
    turns = turns_of(ranked)
    bootstrap = Bootstrap(turns.conversations, RESAMPLES, seed)
    used = ranked["ranked_with"].unique().to_list()
    read = {tier for name in used for tier in name.split("+")}
    present = {tier: names for tier, names in TIER_SIGNALS.items() if tier in read}
    tiers = {f"tier {tier}": names for tier, names in present.items()}
    parts = {**tiers, **{name: [name] for names in present.values() for name in names}}
    orders_without = {part: crossing.rank(names, sampled, used) for part, names in parts.items()}
    ranks = {part: -table["rank"].to_numpy().astype(np.float64) for part, table in orders_without.items()}
    selection = Selection(turns, {OURS: scores(ranked)[OURS], **ranks}, (), bootstrap)
    near = turns.near
    full = _auc(ranked, near, turns, bootstrap)
    found = {}
    for part, table in orders_without.items():
        drawn = _auc(table, near, turns, bootstrap)
        found[part] = {
            "selected": selection.share(part).rounded(),
            "selected_lost": selection.minus(OURS, part).rounded(),
            "auc_near": estimate(drawn).rounded(),
            "auc_lost": estimate(full - drawn).rounded(),
        }
    return found


def _auc(table: pl.DataFrame, rows: Any, turns: Turns, bootstrap: Bootstrap) -> Any:
    score = table["groundedness"].to_numpy()[rows]
    return bootstrap.statistic(auc_of(score, turns.genuine[rows]), turns.conversations[rows])


def left_out_of(unseen: Unseen, seen: pl.DataFrame, seed: int) -> dict[str, Any]:
    """One generator's turns ranked by what never saw it, beside the same turns in the ordinary cross-validation.

    Args:
        seen: The same turns in the same order.
    """
    turns = turns_of(seen)
    bootstrap = Bootstrap(turns.conversations, RESAMPLES, seed)
    ways = {OURS: None if unseen.no_rules else OURS, GROUNDEDNESS: GROUNDEDNESS}
    named = {"seen": scores(seen), "unseen": scores(unseen.ranked)}
    every = {f"{who} {way}": named[who][way] for who in named for way, used in ways.items() if used}
    selection = Selection(turns, every, (), bootstrap)
    return {
        **described(seen),
        "fits": unseen.fits,
        "no_rules": unseen.no_rules,
        "random": selection.share("random").rounded(),
        "oracle": selection.share("oracle").rounded(),
        "selected": {
            way: {
                "seen": selection.share(f"seen {way}").rounded(),
                "unseen": selection.share(f"unseen {way}").rounded(),
                "lost": selection.minus(f"seen {way}", f"unseen {way}").rounded(),
            }
            for way, used in ways.items()
            if used
        },
        "groundedness": {
            who: rounded(order(turns, table["groundedness"].to_numpy(), bootstrap))
            for who, table in (("seen", seen), ("unseen", unseen.ranked))
        },
    }
