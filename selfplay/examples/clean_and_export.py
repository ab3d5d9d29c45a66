"""Clean conversations that you have, and learn from the bad turns too: KTO rows, and DPO pairs of candidate turns.

    python clean_and_export.py [conversations.jsonl] [turns.jsonl] [folder]

Needs no model: the rules read the text alone.
"""

import sys
from pathlib import Path
from typing import Any

import selfplay


def main(conversations: Any, turns: Any, out: Path) -> None:
    """Cleans whole conversations; then chooses among several candidates at each place.

    Args:
        conversations: With whatever user turns they have. One turn at a place makes KTO rows, not pairs.
        turns: Rows `{"messages", "turn"}`, several for the same messages. (clean(on_bad="replace") draws some.)
    """
    cleaned = selfplay.clean(conversations, out / "cleaned", on_bad="cut", bad="malformed,identity_leakage")
    kept, dropped = (sum(1 for _ in cleaned.conversations(dropped=also)) for also in (False, True))
    print(f"{kept} of {dropped} conversations stay")
    print(cleaned.export(out / "kto", format="kto"))

    chosen = selfplay.turns(turns).filter(rules="text").rank(select=1, tiers="text")
    print(chosen.table.select("turn", "label", "groundedness", "rank", "selected"))
    print(chosen.export(out / "dpo", format="dpo", pairs="both"))


if __name__ == "__main__":
    bundled = Path(selfplay.__file__).parent / "examples"
    given = sys.argv[1:]
    given += [str(bundled / "conversations.jsonl"), str(bundled / "turns.jsonl"), "cleaned-and-exported"][len(given) :]
    main(given[0], given[1], Path(given[2]))
