"""`selfplay run` as a user calls it, with real models, over every engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from selfplay.engines.sglang_server import Server, launch
from tests.integration import sglang_cpu

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "selfplay" / "examples" / "conversations.jsonl"


def selfplay(
    *arguments: object, code: int = 0, python: str = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [python, "-c", "from selfplay.cli import main; main()", *map(str, arguments)],
        capture_output=True, text=True, timeout=900, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def candidates(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(part) for part in sorted((folder / "turns").glob("*.parquet"))])


def check_dataset(folder: Path, sites: int, n: int) -> None:
    """What holds for any finished run."""
    record = json.loads((folder / "run.json").read_bytes())
    assert record["status"] == "done"
    turns = candidates(folder)
    assert len(turns) == sites * n
    chosen = rows(folder / "chosen.jsonl")
    assert len(chosen) == turns["selected"].sum() == record["summary"]["selected"]
    contexts = {row["id"]: row for row in rows(EXAMPLES)}
    for row in chosen:
        context = contexts[row["conversation_id"]]
        *before, last = row["messages"]
        assert before == context["messages"]
        assert last["role"] == "user"
        assert row["completion"] == [{"role": "assistant", "content": last["content"]}]
        assert row["prompt"][-1] == {"role": "user", "content": context["messages"][-1]["content"]}
        assert row["domain"] == context["domain"]
    rejected = pl.read_parquet(folder / "rejected.parquet")
    assert len(rejected) + len(chosen) == len(turns)
    assert rejected["rejected_for"].is_not_null().all()
    flagged = rejected.filter(pl.col("rejected_for") == "flagged")
    assert flagged["rule"].is_not_null().all()
    assert flagged["evidence"].str.len_chars().gt(0).all()
    estimates = record["summary"]["estimated_genuine"]
    assert 0 < estimates["before"]["low"] <= estimates["before"]["mean"] <= estimates["before"]["high"] < 1


def test_run_with_the_embedded_models_and_all_signals(tmp_path: Path) -> None:
    few = ("--n", 3, "--limit", 4, "--max-tokens", 24, "--tiers", "all", "--seed", 1)
    options = ("run", EXAMPLES, "-o", tmp_path / "out", *few)
    done = selfplay(*options)
    check_dataset(tmp_path / "out", 4, 3)
    turns = candidates(tmp_path / "out")
    spoken = turns.filter(pl.col("turn").str.strip_chars() != "")
    assert spoken["cos_answer_best"].is_not_null().all()
    cut = spoken["finish_reason"] == "length"
    assert 0 < cut.sum() < len(cut)
    for signal in ("answer_pmi", "role_ratio"):
        assert (spoken[signal].is_null() == cut).all(), "what will not be chosen is not scored"
    assert set(spoken.filter(cut)["rule_set"]) == {"text"}
    assert "full" in set(spoken.filter(~cut)["rule_set"]), "which reads the state"
    assert spoken.filter(~cut)["ranked_with"].str.contains("state").all()
    assert turns["seed"].is_not_null().all()
    assert "estimated genuine, selected" in done.stderr
    before = (tmp_path / "out" / "chosen.jsonl").stat().st_mtime_ns, candidates(tmp_path / "out")
    assert "candidates" in selfplay(*options).stderr, "a finished run starts again and has nothing to do"
    assert candidates(tmp_path / "out").equals(before[1])
    refused = selfplay(*options[:-1], 2, code=2)
    assert "seed: 1 -> 2" in refused.stderr


def test_sample_filter_rank_through_pipes_is_run_in_pieces(tmp_path: Path) -> None:
    selfplay("sample", EXAMPLES, "-o", tmp_path / "s", "--n", 2, "--limit", 2, "--max-tokens", 12)
    sampled = rows(tmp_path / "s" / "turns.jsonl")
    assert [row["sample"] for row in sampled] == [0, 1, 0, 1]
    selfplay("filter", tmp_path / "s" / "turns.jsonl", "-o", tmp_path / "f.jsonl", "--tiers", "text")
    selfplay("rank", tmp_path / "f.jsonl", "-o", tmp_path / "r.jsonl", "--tiers", "text")
    ranked = rows(tmp_path / "r.jsonl")
    assert [row["turn"] for row in ranked] == [row["turn"] for row in sampled]
    assert sorted(row["rank"] for row in ranked) == [1, 1, 2, 2]
    # `run` on the same folder goes on from the samples.
    selfplay("run", EXAMPLES, "-o", tmp_path / "s", "--n", 2, "--limit", 2, "--max-tokens", 12, "--tiers", "text")
    assert candidates(tmp_path / "s")["turn"].to_list() == [row["turn"] for row in sampled]


def test_preview_writes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from selfplay.cli import main; main()", "run", str(EXAMPLES), "--preview", "1",
         "--n", "2", "--max-tokens", "8", "--tiers", "text"],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("T=1 ") == 2
    assert "example-01-ferry#1" in done.stdout
    assert not list(tmp_path.iterdir())


SERVED = {
    "sglang": ("--engine", "sglang"),
    "completions": ("--engine", "openai"),
    "chat": ("--engine", "openai", "--chat"),
}


@pytest.mark.sglang
@pytest.mark.parametrize("way", SERVED)
def test_run_over_a_server(way: str, sglang_server: Server, smollm2: str, tmp_path: Path) -> None:
    url = sglang_server.url if way == "sglang" else f"{sglang_server.url}/v1"
    out = tmp_path / way
    options = ("--n", 2, "--limit", 3, "--max-tokens", 12, "--tiers", "text", "--temperature", 0.8)
    selfplay("run", EXAMPLES, "-o", out, *SERVED[way], "--base-url", url, "--tokenizer", smollm2, *options)
    check_dataset(out, 3, 2)
    turns = candidates(out)
    assert turns["seed"].is_null().all(), "this server cannot be seeded, and the data says so"
    assert turns["primed"].all() == (way == "chat")
    if way == "sglang":
        assert turns.filter(pl.col("sample") > 0)["cached_tokens"].min() > 0
    if way == "chat":
        record = json.loads((out / "run.json").read_bytes())
        assert "instruction" in record["summary"]["estimated_genuine"]["before"]["why"]


@pytest.mark.sglang
def test_a_server_scores_what_it_sampled_from_its_cache(sglang_server: Server, tmp_path: Path) -> None:
    selfplay(
        "run", EXAMPLES, "-o", tmp_path / "out", "--engine", "sglang", "--base-url", sglang_server.url,
        "--model", "smollm2-135m", "--scorer-model", "self", "--tiers", "all",
        "--n", 4, "--limit", 3, "--max-tokens", 12, "--allow-truncated",
    )  # fmt: skip
    check_dataset(tmp_path / "out", 3, 4)
    record = json.loads((tmp_path / "out" / "run.json").read_bytes())
    share = record["summary"]["scoring_cached_share"]
    print(f"cached share while scoring: {share:.1%}")
    assert share > 0.5
    parts = [pl.read_parquet(path) for path in (tmp_path / "out" / "turns").glob("*.parquet")]
    spoken = pl.concat(parts).filter(pl.col("turn").str.strip_chars() != "")
    assert spoken["answer_pmi"].is_not_null().all()


@pytest.mark.sglang
def test_run_launches_a_server_and_stops_it(sglang_python: str, smollm2: str, tmp_path: Path) -> None:
    arguments = [f"--server-arg={argument}" for argument in sglang_cpu.ARGUMENTS]
    selfplay(
        "run", EXAMPLES, "-o", tmp_path / "out", "--engine", "sglang", "--launch", "--model", smollm2, *arguments,
        "--n", 2, "--limit", 1, "--max-tokens", 8, "--tiers", "text",
        SELFPLAY_SGLANG_PYTHON=sglang_python, **sglang_cpu.ENV,
    )  # fmt: skip
    check_dataset(tmp_path / "out", 1, 2)
    assert (tmp_path / "out" / "engine.log").stat().st_size
    pid = json.loads((tmp_path / "out" / "run.json").read_bytes())["engine"].get("pid")
    assert pid is None or not Path(f"/proc/{pid}").exists()


@pytest.mark.sglang
def test_run_with_the_engine_in_process(sglang_python: str, smollm2: str, tmp_path: Path) -> None:
    options = [
        f"--server-arg=--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in sglang_cpu.OPTIONS.items()
    ]
    selfplay(
        "run", EXAMPLES, "-o", tmp_path / "out", "--engine", "sglang", "--in-process", "--model", smollm2, *options,
        "--n", 4, "--limit", 2, "--max-tokens", 8, "--tiers", "text", python=sglang_python, **sglang_cpu.ENV,
    )  # fmt: skip
    check_dataset(tmp_path / "out", 2, 4)
    assert candidates(tmp_path / "out").filter(pl.col("sample") > 0)["cached_tokens"].min() > 0


@pytest.mark.sglang
def test_run_over_two_servers_shares_the_sites_between_them(
    sglang_server: Server, sglang_python: str, smollm2: str, tmp_path: Path
) -> None:
    second = launch(
        smollm2, python=sglang_python, log_path=tmp_path / "second.log", extra_args=sglang_cpu.ARGUMENTS,
        env=sglang_cpu.ENV, ready_timeout=600,
    )  # fmt: skip
    try:
        urls = ("--base-url", sglang_server.url, "--base-url", second.url)
        options = ("--n", 4, "--limit", 8, "--max-tokens", 8, "--tiers", "text")
        selfplay("run", EXAMPLES, "-o", tmp_path / "out", "--engine", "sglang", *urls, "--tokenizer", smollm2, *options)
    finally:
        second.close()
    check_dataset(tmp_path / "out", 8, 4)
    siblings = candidates(tmp_path / "out").filter(pl.col("sample") > 0)
    assert siblings["cached_tokens"].min() > 0, "a site stays with the server that has its prefix"
    prefills = (tmp_path / "second.log").read_text(errors="replace").count("Prefill batch")
    assert prefills > 0, "the second server had no work"
