"""Select the best of N user turns for each of your conversations, and write them as trainers read them.

    python best_of_n.py [conversations.jsonl] [folder]

As it stands it is small enough for a laptop without a GPU; raise the numbers and name your model.
"""

import sys
from pathlib import Path
from typing import Any

import selfplay

SMALL = {"model": "smollm2-135m", "n": 6, "max_tokens": 32, "limit": 2, "seed": 3}


def main(conversations: Any, out: Path, how: Any = SMALL, tiers: str = "auto") -> None:
    """Samples, filters, ranks, exports."""
    sampled = selfplay.load(conversations).sample(out / "sampled", **how)  # goes on here if it was interrupted
    turns = sampled.filter(tiers=tiers).rank(select=1, tiers=tiers)
    print(*turns.notes, sep="\n")
    for row in turns.chosen():
        print(f"{row['groundedness']:.2f}  {row['messages'][-1]['content']}")
    if not turns.table["selected"].any():
        print("no turn was good enough: raise n or max_tokens, or take a larger model")
        return
    print(turns.export(out / "sft", format=["prompt-completion", "messages"], validation=0.1))


if __name__ == "__main__":
    bundled = Path(selfplay.__file__).parent / "examples" / "conversations.jsonl"
    given = sys.argv[1:]
    given += [str(bundled), "best-of-n"][len(given) :]
    main(given[0], Path(given[1]))
