"""How many turns that real people wrote get a hard label: each user turn after an assistant's, in a given file.

A hard label says that a turn is broken or no user's: malformed, meta_planning, identity_leakage, a restatement. People
seldom write such turns, so nearly all of these are mistakes of the rules; each is printed, to be looked at.

    python benchmarks/real_turns.py conversations.jsonl --rules text      the text tier alone
    python benchmarks/real_turns.py conversations.jsonl --rules full      measures the signals, about a second a turn

Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

from scipy.stats import binomtest  # type: ignore[import-untyped]

from filters.labels import Label
from selfplay.filtering import Filtering, filter_file
from selfplay.inputs.quarantine import Quarantine

HARD = (
    Label.MALFORMED,
    Label.META_PLANNING,
    Label.IDENTITY_LEAKAGE,
    Label.PROMPT_RESTATEMENT,
    Label.ASSISTANT_RESTATEMENT,
)


def turn_rows(path: Path) -> list[dict[str, object]]:
    """A row for each user message that follows an assistant's: what stands before it, and it as the turn.

    Args:
        path: JSONL with `messages`, and `id` where there is one.
    """
    rows: list[dict[str, object]] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            conversation = json.loads(line)
            messages = conversation["messages"]
            for place in range(1, len(messages)):
                if (messages[place - 1]["role"], messages[place]["role"]) == ("assistant", "user"):
                    name = conversation.get("id", number)
                    rows.append(
                        {"id": f"{name}/{place}", "messages": messages[:place], "turn": messages[place]["content"]}
                    )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("conversations", type=Path)
    parser.add_argument("--rules", default="text", help="text, full or a file, as `selfplay filter` takes it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "rows.jsonl"), Path(folder, "labelled.jsonl")
        source.write_text("".join(json.dumps(row) + "\n" for row in turn_rows(given.conversations)), "utf-8")
        for said in filter_file(str(source), str(out), Filtering(rules=given.rules), Quarantine(None)):
            print(said)
        labelled = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    hard = [row for row in labelled if row["label"] in HARD]
    for row in hard:
        print(f"{row['id']}: {row['label']}, {row['rule']} ({row['evidence']}): {row['turn'][:200]!r}")
    bounds = binomtest(len(hard), len(labelled)).proportion_ci(method="wilson") if labelled else None
    report = {
        "rules": given.rules,
        "turns": len(labelled),
        "hard": len(hard),
        "share_hard": round(len(hard) / len(labelled), 4) if labelled else None,
        "interval": [round(bounds.low, 4), round(bounds.high, 4)] if bounds else None,
        "labels": dict(Counter(row["label"] for row in labelled).most_common()),
        "hard_rules": dict(Counter(f"{row['label']}: {row['rule']}" for row in hard).most_common()),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
