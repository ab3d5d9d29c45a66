"""Verdicts on disk, and what they may cost: nothing is lost, nothing is paid twice, the limit holds."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest

from selfplay.errors import SelfplayError, UsageError
from selfplay.judge.budget import Budget, BudgetSpent, Price, most_tokens
from selfplay.judge.cache import Cache, Entry, key_of
from selfplay.judge.verdict import Verdict

YES = Entry(Verdict("follow_up", 3, "é"), 10, 5)
PAIR = Entry(Verdict(reason="so", better="second"), 20, 6)
NO = Entry(Verdict(error="not JSON: x"), None, None)


def filled(path: Path) -> Path:
    with Cache(path) as cache:
        cache.put("a", YES)
        cache.put("b", NO)
    return path


def test_entries_come_back(tmp_path: Path) -> None:
    with Cache(filled(tmp_path / "new" / "c.jsonl")) as cache:
        assert (cache.get("a"), cache.get("b"), cache.get("c")) == (YES, NO, None)


def test_entries_about_pairs_stand_beside_those_written_before_there_were_any(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in filled(tmp_path / "c").read_text().splitlines()]
    older = [{name: value for name, value in line.items() if name != "better"} for line in lines]
    (tmp_path / "c").write_text("".join(json.dumps(line) + "\n" for line in older))
    with Cache(tmp_path / "c") as cache:
        cache.put("p", PAIR)
    with Cache(tmp_path / "c") as cache:
        assert (cache.get("a"), cache.get("b"), cache.get("p")) == (YES, NO, PAIR)


def test_a_kill_at_any_byte_loses_the_last_entry_at_most(tmp_path: Path) -> None:
    whole = filled(tmp_path / "whole").read_bytes()
    first = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for cut in sorted({*range(0, len(whole), 7), *(len(whole) - k for k in range(3)), first - 1, first, first + 1}):
        path = tmp_path / "cut"
        path.write_bytes(whole[:cut])
        with Cache(path) as cache:
            assert cache.get("a") == (YES if cut >= first else None)
            assert cache.get("b") == (NO if cut == len(whole) else None)
            cache.put("c", YES)
        with Cache(path) as cache:
            assert cache.get("c") == YES


def test_a_damaged_line_is_judged_anew_and_costs_no_other(tmp_path: Path) -> None:
    path = filled(tmp_path / "c")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b'{"key": 3\n', b"\xff\n", b'{"key": "d"}\n', *lines[1:]]))
    with Cache(path) as cache:
        assert (cache.get("a"), cache.get("b"), cache.get("d")) == (YES, NO, None)


@pytest.mark.parametrize("data", [b"precious\n", b'{"id": 1}', b'{"format": "selfplay-judge-cache/2"}\n'])
def test_another_file_is_refused_and_left_as_it_was(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "f").write_bytes(data)
    with pytest.raises(UsageError, match="no cache of verdicts"):
        Cache(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == data


def test_two_processes_do_not_share_a_cache(tmp_path: Path) -> None:
    with Cache(tmp_path / "c"), pytest.raises(SelfplayError, match="another selfplay"):
        Cache(tmp_path / "c")
    Cache(tmp_path / "c").close()


def test_a_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        Cache(tmp_path)


def test_the_key_is_of_all_that_decides_a_verdict() -> None:
    base = ("v", "m", "h:1", [{"role": "user", "content": "a"}], "t")
    changed = [
        ("w", *base[1:]),
        ("v", "n", *base[2:]),
        ("v", "m", "h:2", *base[3:]),
        (*base[:3], [], "t"),
        (*base[:4], "u"),
        (*base[:4], ["t", "u"]),
        (*base[:4], ["u", "t"]),
    ]
    assert len({key_of(*each) for each in (base, *changed)}) == 8
    assert key_of(*base) == key_of("v", "m", "h:1", [{"content": "a", "role": "user"}], "t")


@pytest.mark.parametrize("seed", range(20))
def test_the_limit_holds_whatever_requests_cost_and_in_whatever_order(seed: int) -> None:
    chance = random.Random(seed)
    budget = Budget(limit=10.0)
    stopped = 0

    async def one() -> None:
        nonlocal stopped
        most = chance.uniform(0.1, 3)
        try:
            await budget.book(most)
        except BudgetSpent:
            stopped += 1
            return
        await asyncio.sleep(chance.choice([0, 0, 0.001]))
        await budget.settle(most, chance.choice([None, 0.0, most * chance.random()]))

    async def all_of_them() -> None:
        await asyncio.wait_for(asyncio.gather(*(one() for _ in range(60))), 10)

    asyncio.run(all_of_them())
    assert budget.spent <= 10.0
    assert stopped == 0 or budget.spent > 10.0 - 3


def test_prices_are_of_a_million_tokens() -> None:
    assert Price(0.15, 0.6).of(1_000_000, 500_000) == pytest.approx(0.45)
    assert Price().of(1000, 1000) == 0


def test_a_text_has_at_most_a_token_a_byte() -> None:
    assert most_tokens("né") >= 3


def test_lines_are_ascii_and_whole(tmp_path: Path) -> None:
    lines = filled(tmp_path / "c").read_text("ascii").splitlines()
    assert [json.loads(line).get("key") for line in lines] == [None, "a", "b"]


def test_a_cache_without_entries_leaves_no_file_and_one_it_did_not_make_stays(tmp_path: Path) -> None:
    Cache(tmp_path / "c").close()
    assert not (tmp_path / "c").exists()
    (tmp_path / "f").write_bytes(b"x\n")
    with pytest.raises(UsageError):
        Cache(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"x\n"
