"""A small judged set, made up: what each label says is plain, so that learning takes seconds and finds something."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from filters.learning import ceiling, learn, quality, search

TOPICS = ("garden", "kitchen", "engine", "novel", "harbour", "violin", "glacier", "bakery", "orchard", "castle")
THINGS = ("soil", "copper", "timing", "chapter", "anchor", "string", "meltwater", "dough", "pruning", "tower", "rope")


def write_judged(folder: Path, conversations: int = 60, sampled: int = 5) -> Path:
    """A folder in the form of filters/judged: per conversation `sampled` turns by a model and three written ones."""
    rng = random.Random(7)
    contexts, turns = [], []
    for number in range(conversations):
        topic, *things = rng.choice(TOPICS), *rng.sample(THINGS, 4)
        question = f"How do I look after the {things[0]} of my {topic} when it rains all week?"
        answer = f"Cover the {things[0]} first, then check the {things[1]} and keep the {things[2]} dry until Friday."
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        contexts.append({"id": f"c{number}", "messages": messages})
        said = {
            "follow_up": f"Why should the {things[2]} stay dry until Friday, and not the {things[1]}?",
            "prompt_restatement": question,
            "degenerate": rng.choice(("Ok.", "Thanks!", "...")),
            "malformed": f"<|im_start|>assistant {things[1]} <|im_end|>",
            "off_topic": f"Write a short poem about a {things[3]} that nobody in Lisbon remembers.",
        }
        for place in range(sampled + 3):
            label = rng.choice(list(said))
            turns.append(
                {
                    "id": f"c{number}/{place}",
                    "context": f"c{number}",
                    "source": "tiny" if place < sampled else "written",
                    "text": said[label],
                    "label": label,
                    "groundedness": 2 if label == "follow_up" else 0,
                }
            )
    for name, rows in (("contexts.jsonl", contexts), ("judged_turns.jsonl", turns)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder


def learn_roughly(patch: pytest.MonkeyPatch) -> None:
    """Fewer trees, rounds and resamples: seconds become tenths, and nothing that tests look at changes in kind."""
    patch.setattr(learn, "TREES", learn.TREES | {"n_estimators": 4, "learning_rate": 0.3})
    patch.setattr(learn, "TOLERANCE", 0.1)
    patch.setattr(search, "_ROUNDS", 1)
    patch.setattr(learn, "REPLICATES", 5)
    patch.setattr(quality, "DRAWS", 10)
    patch.setattr(ceiling, "TREES", ceiling.TREES | {"max_iter": 4})
