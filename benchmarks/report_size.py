"""Opens the report of a large run in Chromium: seconds until it can be used, requests and console errors.

The run is made here, of words drawn by a seed: 10,000 sites with 8 candidates each. Needs playwright and Chromium.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from filters.labels import PRECEDENCE
from selfplay.config import SampleConfig, SelectConfig
from selfplay.report.writing import write_report
from selfplay.runs import Run
from selfplay.tables import SITES

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PART = 256
DOMAINS = ("cooking", "travel", "code", "maths", "law", "health")


def large_run(folder: Path, sites: int, candidates: int, seed: int) -> Path:
    """A finished run of drawn words, in parts as a real one has."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("aeiourstlnmdkbp", k=draw.randint(2, 9))) for _ in range(8000)]
    weights = list(itertools.accumulate(1 / (rank + 5) for rank in range(len(words))))
    sample = SampleConfig(source="drawn", source_hash="0", model="drawn", temperatures={0.7: 4, 1.0: 4})
    select = SelectConfig(rules="default", rules_hash="0", weights="default", weights_hash="0", tiers=("text",))
    run = Run(folder, sample.as_json(), select.as_json(), fresh=True)

    def text(count: int) -> str:
        return " ".join(draw.choices(words, cum_weights=weights, k=count)).capitalize() + "."

    for number, begin in enumerate(range(0, sites, PART)):
        contexts, turns = [], []
        for ordinal in range(begin, min(begin + PART, sites)):
            messages = [("user", text(40)), ("assistant", text(140)), ("user", text(15)), ("assistant", text(120))]
            key = {"site_id": f"drawn-{ordinal}#3", "ordinal": ordinal, "conversation_id": f"drawn-{ordinal}"}
            contexts.append(key | {
                "messages": json.dumps([{"role": role, "content": content} for role, content in messages]),
                "extra": json.dumps({"domain": draw.choice(DOMAINS)}), "next_user": text(12), "file": "drawn",
                "line": ordinal, "prompt_tokens": 400,
            })  # fmt: skip
            turns += [key | one for one in drawn_turns(draw, text, candidates)]
        run.write("sites", number, pl.DataFrame(contexts, schema=SITES))
        run.write("sampled", number, pl.DataFrame(turns))
        run.write("turns", number, pl.DataFrame(turns))
    run.save(status="done", input={"rows": sites, "bad_rows": 0, "bad_by_reason": {}}, failed=0)
    run.close()
    return folder


def drawn_turns(draw: random.Random, text: Any, candidates: int) -> list[dict[str, Any]]:
    """The candidates of a site, ranked; the best that passed is chosen."""
    found = []
    for i in range(candidates):
        turn = text(draw.randint(3, 40))
        genuine = draw.random() < 0.3
        label = PRECEDENCE[-1] if genuine else draw.choice(PRECEDENCE[:-1])
        found.append({
            "model": "drawn", "primed": False, "temperature": (0.7, 1.0)[i % 2], "sample": i // 2, "seed": i,
            "turn": turn, "finish_reason": "stop", "completion_tokens": len(turn) // 4, "cached_tokens": 0,
            "label": label.value, "genuine": genuine, "p_genuine": draw.random(),
            "rule": None if genuine else f"reads like {label.value}",
            "evidence": None if genuine else f'share of its words in the answer 0.8 >= 0.7; "{turn[:30]}"',
            "rule_set": "text", "groundedness": draw.random(),
        })  # fmt: skip
    found.sort(key=lambda one: -one["groundedness"])
    best = next((one for one in found if one["genuine"]), None)
    for rank, one in enumerate(found, 1):
        why = None if one is best else "lower_rank" if one["genuine"] else "flagged"
        one |= {"rank": rank, "selected": one is best, "rejected_for": why}
    return found


def opened(chromium: Browser, path: Path, times: int, last_id: str) -> dict[str, Any]:
    """Seconds from the call to a page that can be used, a conversation in it shown; and what should not happen."""
    from playwright.sync_api import expect

    seconds: list[float] = []
    requests: list[str] = []
    errors: list[str] = []
    for _ in range(times):
        page = chromium.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        began = time.monotonic()
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        page.wait_for_selector(".candidate", state="attached")
        seconds.append(time.monotonic() - began)
        page.keyboard.press("b")
        began = time.monotonic()
        page.keyboard.press("G")
        page.wait_for_selector(f".sitehead:has-text('{last_id}')")
        last = time.monotonic() - began
        began = time.monotonic()
        page.fill("#search", "no such words")
        expect(page.locator("#found")).to_have_text(re.compile("^0 of"), timeout=120_000)
        searched = time.monotonic() - began
        page.close()
    return {
        "open_seconds": [round(one, 2) for one in seconds], "last_site_seconds": round(last, 2),
        "search_all_seconds": round(searched, 2), "requests": len(requests) - times, "console": errors,
    }  # fmt: skip


def main() -> None:
    """Prints one JSON line."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=10_000)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="Leave run and report in this folder.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="selfplay-") as temporary:
        place = given.keep or Path(temporary)
        large_run(place / "run", given.sites, given.candidates, 0)
        began = time.monotonic()
        list(write_report(str(place / "run"), str(place / "report.html"), given.sites))
        made = {
            "sites": given.sites, "candidates": given.candidates, "write_seconds": round(time.monotonic() - began, 1),
            "megabytes": round((place / "report.html").stat().st_size / 1e6, 1),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }  # fmt: skip
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"))
            print(json.dumps(made | opened(chromium, place / "report.html", given.times, f"drawn-{given.sites - 1}#3")))


if __name__ == "__main__":
    main()
