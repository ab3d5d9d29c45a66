"""Time and memory of `selfplay clean` with text rules on many conversations.

Conversations of 4 to 10 messages are put together from sentences of the judged conversations and from judged turns,
control tokens and all: answers of about 700 characters, user messages of about 110, a tenth of the conversations a
near-copy of an earlier one. Memory is the sum over all processes, of pages that are theirs (PSS), polled.

    python benchmarks/cleaning.py --conversations 100000 --workers 2
    python benchmarks/cleaning.py --conversations 10000 --profile      where the time goes, in one process

Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import math
import os
import pstats
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
COPIES = 0.1
RECENT = 1000


def conversations(count: int, seed: int = 0, answers: int = 600) -> Iterator[dict[str, object]]:
    """The same ones for the same seed; near-copies change a word here and there.

    Args:
        answers: Median of the answers' characters.
    """
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
    prompts = [message["content"] for message in said if message["role"] == "user"]
    turns = [json.loads(line)["text"] for line in (judged / "judged_turns.jsonl").read_text("utf-8").splitlines()]
    recent: list[list[dict[str, str]]] = []
    for number in range(count):
        if recent and draw.random() < COPIES:
            messages = [{**message, "content": _changed(message["content"], draw)} for message in draw.choice(recent)]
        else:
            messages = []
            for place in range(draw.choice((4, 6, 8, 10))):
                if place % 2:
                    content = ""
                    length = min(4000, draw.lognormvariate(math.log(answers), 0.6))
                    while len(content) < length:
                        content += draw.choice(sentences) + " "
                else:
                    content = draw.choice(turns if place else prompts)
                messages.append({"role": "assistant" if place % 2 else "user", "content": content})
            if len(recent) < RECENT:
                recent.append(messages)
            else:
                recent[draw.randrange(RECENT)] = messages
        yield {"id": f"made-{number}", "source": f"source-{number % 3}", "messages": messages}


def _changed(text: str, draw: random.Random) -> str:
    words = text.split(" ")
    if len(words) > 30:
        words[draw.randrange(len(words))] = "indeed"
    return " ".join(words)


def memory(pid: int) -> int:
    """MiB of a process and its children."""
    total = 0
    for process in [pid, *_children(pid)]:
        try:
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
        except OSError:  # it has just ended
            continue
        total += int(found[1]) if found else 0
    return total // 1024


def _children(pid: int) -> list[int]:
    try:
        found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return found + [below for child in found for below in _children(child)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--conversations", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, help="where to put it all; removed at the end. [default: a temporary one]"
    )
    parser.add_argument("--answers", type=int, default=600, help="median of their characters")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("options", nargs="*", help="more options of selfplay clean, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        source, out = Path(name, "conversations.jsonl"), Path(name, "out")
        with source.open("w", encoding="utf-8") as file:
            for row in conversations(given.conversations, given.seed, given.answers):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if given.profile:
            from selfplay.cleaning import clean

            profile = cProfile.Profile()
            profile.runcall(clean.execute, clean.Job(str(source)), out)
            pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
            return
        began, peak = time.monotonic(), 0
        code = "from selfplay.cli import main; main()"
        arguments = ["clean", str(source), "-o", str(out), "--workers", str(given.workers), *given.options]
        process = subprocess.Popen([sys.executable, "-c", code, *arguments], env=os.environ | {"PYTHONPATH": str(ROOT)})
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.5)
        seconds = time.monotonic() - began
        used = os.times()
        summary = json.loads((out / "run.json").read_bytes())["summary"]
        report = {
            "conversations": given.conversations,
            "megabytes": round(source.stat().st_size / 1e6),
            "answers": given.answers,
            "turns": summary["turns"]["in"],
            "workers": given.workers,
            "exit": process.returncode,
            "seconds": round(seconds, 1),
            "cpu_seconds": round(used.children_user + used.children_system, 1),
            "peak_mib": peak,
            "near_duplicates": summary["duplicates"] and summary["duplicates"]["conversations"],
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
