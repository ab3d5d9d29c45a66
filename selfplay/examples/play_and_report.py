"""Play dialogues from first prompts, and look at them in a browser.

python play_and_report.py [folder]
"""

import sys
from pathlib import Path
from typing import Any

import selfplay

PROMPTS = [
    {"prompt": "How long do I boil an egg for a soft yolk?"},
    {"prompt": "Name three trees that grow well in wet soil."},
]
SMALL = {
    "model": "smollm2-135m",
    "rounds": 1,
    "n": 8,
    "max_tokens": 32,
    "assistant_max_tokens": 48,
    "allow_cut_answers": True,
}


def main(prompts: Any, out: Path, how: Any = SMALL) -> None:
    """Plays, prints the dialogues, writes a page about them."""
    played = selfplay.play(prompts, out / "dialogues", **how)
    for dialogue in played.conversations():
        print(f"--- {dialogue['id']} ended: {dialogue['ending']}")
        for message in dialogue["messages"]:
            print(f"{message['role']}: {message['content']}")
    print(played.turns())
    played.report(out / "report.html")


if __name__ == "__main__":
    main(PROMPTS, Path(sys.argv[1] if len(sys.argv) > 1 else "played"))
