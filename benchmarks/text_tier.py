"""Turns per second that the text tier labels on one core, against per-row Python and against a judge's tokens.

Two regimes: eight candidates share a conversation, as after sampling; and every turn has an answer of its own, as when
a dataset is cleaned. The texts are sentences of the judged conversations, put together anew. Ours and the per-row loop
alternate; seconds are those of the process (all its threads), since a busy machine lends its cores to others too.
Answers are about 600 characters, turns about 120.

    POLARS_MAX_THREADS=1 OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/text_tier.py
    … --rows 10000000 --only ours      memory stays flat: rows are made and dropped in chunks

Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import polars as pl
from rapidfuzz import fuzz

import filters
from filters.features import compute

ROOT = Path(__file__).parent.parent
CHUNK = 10_000
SITES = {"own answer": 1, "eight share one": 8}


def tables(rows: int, per_site: int, seed: int = 0) -> Iterator[pl.DataFrame]:
    """Tables of at most `CHUNK` rows, `rows` in all."""
    draw = random.Random(seed)
    judged = ROOT / "filters" / "judged"
    contexts = [json.loads(line) for line in (judged / "contexts.jsonl").read_text("utf-8").splitlines()]
    said = [message for context in contexts for message in context["messages"]]
    sentences = [
        sentence
        for message in said
        if message["role"] == "assistant"
        for sentence in re.split(r"(?<=[.!?])\s+|\n+", message["content"])
        if sentence.strip()
    ]
    queries = [message["content"] for message in said if message["role"] == "user"]
    turns = [json.loads(line)["text"] for line in (judged / "judged_turns.jsonl").read_text("utf-8").splitlines()]
    done = 0
    while done < rows:
        columns: dict[str, list[object]] = {"query": [], "answer": [], "history": [], "turn": []}
        count = min(CHUNK, rows - done)
        for row in range(count):
            if row % per_site == 0:
                answer, query = "", draw.choice(queries)
                while len(answer) < 560:
                    answer += draw.choice(sentences) + " "
            turn = draw.choice(turns)
            while len(turn) < 90:
                turn += " " + draw.choice(turns)
            for name, value in zip(columns, (query, answer, [query], turn[: draw.randrange(60, 190)]), strict=True):
                columns[name].append(value)
        done += count
        yield pl.DataFrame(columns)


_CUES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\bas an ai\b|\blanguage model\b|\bhow can i (?:help|assist)\b|\blet me know if\b|\bfeel free to\b",
        r"\bthe user (?:is|wants|asks|might)\b|\bwe need to (?:respond|reply)\b|\bfollow-?up\b",
        r"\btell me more\b|\bcan you (?:explain|elaborate|clarify)\b|\bwhat do you think\b",
        r"<\|[^|]*\|>|</?s>|\[/?INST\]",
    )
]
_WORDS = re.compile(r"\w+")


def per_row(table: pl.DataFrame) -> list[dict[str, float]]:
    """A handful of comparable features as data filters are commonly written: one sample, one dict at a time.

    Fewer than the text tier has: two fuzzy matches, word overlap, four cue lists, character and n-gram ratios.
    """
    result = []
    for sample in table.iter_rows(named=True):
        turn, answer, query = sample["turn"], sample["answer"], sample["query"]
        words, answer_words, query_words = (_WORDS.findall(text.lower()) for text in (turn, answer, query))
        unique, told, asked = set(words), set(answer_words), set(query_words)
        grams = [tuple(words[place : place + 3]) for place in range(len(words) - 2)]
        stats = {
            "text_len": float(len(turn)),
            "num_words": float(len(words)),
            "alnum_ratio": sum(char.isalnum() for char in turn) / max(1, len(turn)),
            "special_ratio": sum(not char.isalnum() and not char.isspace() for char in turn) / max(1, len(turn)),
            "repetition": 1 - len(set(grams)) / max(1, len(grams)),
            "answer_fuzz": fuzz.partial_ratio(turn, answer),
            "query_fuzz": fuzz.partial_ratio(turn, query),
            "answer_cover": len(unique & told) / max(1, len(unique)),
            "query_cover": len(unique & asked) / max(1, len(unique)),
            "query_recall": len(unique & asked) / max(1, len(asked)),
        }
        stats.update({f"cue_{number}": float(len(cue.findall(turn))) for number, cue in enumerate(_CUES)})
        result.append(stats)
    return result


WAYS: dict[str, Callable[[pl.DataFrame], object]] = {"features": compute, "label": filters.label, "per-row": per_row}


def judge_tokens(table: pl.DataFrame) -> int:
    """Tokens a judge reads and writes for a million such turns, at four characters a token: rubric, sample, verdict."""
    rubric = len((ROOT / "filters" / "rubric.md").read_text("utf-8"))
    sample = table.select(sum(pl.col(name).str.len_chars() for name in ("turn", "answer", "query"))).to_series().mean()
    return round((rubric + float(str(sample))) / 4 + 30) * 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--only", choices=("ours", "all"), default="all")
    parser.add_argument("--price-per-million-tokens", type=float, help="of the judge; without it only tokens are told")
    given = parser.parse_args()
    ways = [name for name in WAYS if given.only == "all" or name != "per-row"]
    for way in ways:  # Tables and patterns are built once, at the first call.
        WAYS[way](next(tables(50, 1)))
    report: dict[str, object] = {}
    for regime, per_site in SITES.items():
        for rows in given.rows:
            rates: dict[str, list[float]] = {way: [] for way in ways}
            total = dict.fromkeys(ways, 0.0)
            for number, table in enumerate(tables(rows, per_site)):
                for way in ways if number % 2 == 0 else reversed(ways):
                    start = time.process_time()
                    WAYS[way](table)
                    spent = time.process_time() - start
                    total[way] += spent
                    rates[way].append(len(table) / spent)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            for way in ways:
                low, middle, high = min(rates[way]), statistics.median(rates[way]), max(rates[way])
                print(
                    f"{regime:15} {rows:>9,} rows  {way:8} {rows / total[way]:>8,.0f} turns/s  "
                    f"(chunks {low:,.0f} to {high:,.0f}, median {middle:,.0f}), peak {peak} MiB",
                    flush=True,
                )
                report[f"{regime}, {rows} rows, {way}"] = round(rows / total[way])
            report["peak_mib"] = peak
    tokens = judge_tokens(next(tables(1000, 1)))
    report["judge_tokens_per_million_turns"] = tokens
    print(f"an LLM judge would read about {tokens / 1e6:,.0f} million tokens for a million turns")
    if given.price_per_million_tokens is not None:
        report["judge_cost_per_million_turns"] = round(tokens / 1e6 * given.price_per_million_tokens, 2)
        print(f"and so cost {report['judge_cost_per_million_turns']:,} at the price given")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
