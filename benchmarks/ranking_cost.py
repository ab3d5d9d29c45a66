"""What ranking costs beside sampling, on the transformers engine, in the same process and run.

Bars: ranking 8 candidates of a site costs at most 40 % of sampling them; the embedding path is at least five times as
fast as encoding for every candidate what it is compared with, one text at a time.

Per round, in turn: sample, rank as `selfplay run` does (the sampler's hidden states, logprobs and prefix pages at hand,
turns that were cut left out), with and without the likelihoods, rank as `selfplay rank` does (nothing at hand), embed
our way and the plain way. Costs are CPU seconds of this process, since on a machine shared with others seconds say
little; wall seconds are told too.

Run: python benchmarks/ranking_cost.py [--sites 8] [--n 8] [--max-tokens 128] [--threads 1]. The last line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filters
import rerank
import selfplay

WAYS = tuple(f"{tiers}, {where}" for where in ("in run", "alone") for tiers in ("state", "state and likelihood"))
EXAMPLES = Path(selfplay.__file__).parent / "examples" / "conversations.jsonl"


class Clock:
    """CPU and wall seconds per arm, one figure per round."""

    def __init__(self) -> None:
        self.cpu: dict[str, list[float]] = defaultdict(list)
        self.wall: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, arm: str) -> Iterator[None]:
        busy, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu[arm].append(time.process_time() - busy)
        self.wall[arm].append(time.perf_counter() - wall)
        print(f"{arm:28s} {self.cpu[arm][-1]:8.2f} CPU s {self.wall[arm][-1]:8.2f} s", flush=True)

    def ratios(self, arm: str, to: tuple[str, ...]) -> dict[str, float]:
        """Median, lowest and highest over rounds of one arm's CPU seconds to the sum of others'."""
        each = [
            mine / sum(theirs) for mine, *theirs in zip(self.cpu[arm], *(self.cpu[name] for name in to), strict=True)
        ]
        return {name: round(of(each), 3) for name, of in (("median", statistics.median), ("min", min), ("max", max))}


def encode_plainly(turns: list[str], queries: list[str | None], answers: list[str], embedder: Any) -> None:
    """What a first implementation does: for every candidate, every text it is compared with, one by one."""
    from selfplay.signals.sentences import sentences

    for turn, query, answer in zip(turns, queries, answers, strict=True):
        for text in (turn, query, answer, *sentences(answer)):
            if text and text.strip():
                embedder.encode([text])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs all arms and returns the figures."""
    import torch

    from selfplay import learned
    from selfplay.config import turn_seed
    from selfplay.core import Draw, Sampling
    from selfplay.engines.base import SampleRequest
    from selfplay.engines.transformers import TransformersEngine
    from selfplay.inputs.conversations import read_conversations, sites
    from selfplay.inputs.quarantine import Quarantine
    from selfplay.signals import embedding
    from selfplay.signals.likelihood import DEFAULT_SCORER, MAX_TOKENS
    from selfplay.signals.measure import measure as measured
    from selfplay.signals.measure import scorer_template
    from selfplay.tables import sites_table, turns_table, with_context

    rules, weights = filters.load_rules(), rerank.load_weights()
    layer = learned.layer(rules, weights)
    engine = TransformersEngine(DEFAULT_SCORER, threads=options.threads, state_layer=layer, state_tokens=MAX_TOKENS)
    embedder = embedding.load_embedder()
    scored = {"scorer": engine, "template": scorer_template(), "layer": layer}
    own = {**scored, "own_tokens": True, "own_logprobs": True}
    clock = Clock()
    tokens: list[int] = []
    lengths: list[int] = []
    places = sites(read_conversations(str(options.conversations), Quarantine(None)), options.turns)
    for number in range(options.repeats + 1):  # the first round warms up, on a single site
        chosen = list(itertools.islice(places, options.sites if number else 1))
        if number and len(chosen) < options.sites:
            raise SystemExit(f"{options.conversations} has too few sites for {options.repeats} rounds")
        requests = [
            SampleRequest(
                site.site_id,
                scored["template"].user_prompt(site.messages),
                tuple(Draw(1.0, i, turn_seed(0, site.site_id, 1.0, i)) for i in range(options.n if number else 2)),
            )
            for site in chosen
        ]
        engine.flush_cache()
        with clock("sample"):
            results = {r.key: r for r in engine.sample(requests, Sampling(max_tokens=options.max_tokens))}
        drawn = [(site, results[site.site_id].candidates) for site in chosen]
        table = with_context(turns_table(drawn, DEFAULT_SCORER, False), sites_table(zip(chosen, requests, strict=True)))
        with clock("rank: text"):
            rerank.rank(filters.label(table, rules), weights)
        with clock("rank: embedding"):
            with_cosines = measured(table, {"embedding"}, embedder=embedder)
        with clock("rank: state, in run"):
            full = measured(with_cosines, {"state"}, **own, skip_cut=True)
        with clock("rank: label and order"):
            rerank.rank(filters.label(full, rules), weights)
        with clock("rank: state and likelihood, in run"):
            measured(with_cosines, {"state", "likelihood"}, **own, skip_cut=True)
        engine.flush_cache()
        with clock("rank: state, alone"):
            measured(with_cosines, {"state"}, **scored)
        engine.flush_cache()
        with clock("rank: state and likelihood, alone"):
            measured(with_cosines, {"state", "likelihood"}, **scored)
        columns = [table[name].to_list() for name in ("turn", "query", "answer")]
        with clock("embed: ours"):
            embedding.embedding_signals(*columns, embedder)
        with clock("embed: plain loop"):
            encode_plainly(*columns, embedder)
        if not number:
            clock.cpu.clear()
            clock.wall.clear()
            continue
        tokens += table["completion_tokens"].to_list()
        lengths += [len(request.prompt.token_ids) for request in requests]
    engine.close()
    for name in WAYS:
        arms = ("rank: embedding", "rank: label and order", f"rank: {name}")
        clock.cpu[f"rank: embedding, {name}"] = [sum(part) for part in zip(*map(clock.cpu.get, arms), strict=True)]
    return {
        "benchmark": "ranking_cost",
        "sites": options.sites,
        "n": options.n,
        "max_tokens": options.max_tokens,
        "rounds": options.repeats,
        "prompt_tokens_mean": round(statistics.mean(lengths)),
        "turn_tokens_mean": round(statistics.mean(tokens), 1),
        "cpu_seconds": {arm: round(statistics.median(values), 2) for arm, values in clock.cpu.items()},
        "wall_seconds": {arm: round(statistics.median(values), 2) for arm, values in clock.wall.items()},
        "to_sampling": {
            name: clock.ratios(f"rank: {name}", ("sample",))
            for name in ("text", "embedding", *(f"embedding, {way}" for way in WAYS))
        },
        "plain_embedding_to_ours": clock.ratios("embed: plain loop", ("embed: ours",)),
        "versions": {"torch": torch.__version__},
        "hardware": {
            "device": engine_device(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load_average": round(os.getloadavg()[0], 2),
        },
    }


def engine_device() -> str:
    """The processor that did it."""
    import torch

    from benchmarks.transformers_branching import _processor

    return torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--conversations", type=Path, default=EXAMPLES)
    parser.add_argument("--turns", choices=("last", "all"), default="last")
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=3)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
