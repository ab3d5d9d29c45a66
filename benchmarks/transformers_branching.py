"""Candidates per second of the in-process engine against `generate(num_return_sequences=N)`, in the same run.

Claim: with four sites batched the branched cache gives at least three times as many. Both sides draw the same number
of tokens (ends are ignored), alternate within every round, and must agree under greedy decoding.

Run: python benchmarks/transformers_branching.py [--model smollm2-135m] [--threads 1]. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

SENTENCES = """\
The harbour was built in stages, and every stage left a wall that the next one had to work around.
A good stock begins with cold water, because heat seals the surface of the bones before they give anything up.
Measure the voltage across the resistor first, then decide whether the transistor is really at fault.
The committee met on a Tuesday and agreed on nothing except the date of the next meeting.
Swifts sleep on the wing, so a young bird may not touch anything solid for two years.
If the dough tears when you stretch it, let it rest for ten minutes and try again.
Rivers that flow north freeze at the mouth before they freeze at the source, and the ice piles up.
The contract allows either side to leave with ninety days of notice, given in writing.
Most of the weight of a tree comes out of the air and only a little of it from the ground.
She kept the letters in a tin that had once held biscuits, sorted by the colour of the ink.
A hash table trades memory for time; a sorted list trades time for memory.
The old railway line is a footpath now, and its stations have become cafes and bicycle shops.
Tides are highest shortly after the new and the full moon, when sun and moon pull together.
Ask for the price in the local currency, and pay by card only where the rate is shown.
Glass that has been heated too fast cracks along the line where the cold part begins.
Several of the early maps show an island there, although nobody who sailed past ever saw it.
The vaccine teaches the body a shape, and the body remembers the shape for years.
Turn the compost when it stops steaming, and add something dry if it begins to smell.
An index speeds up reading at the cost of writing, so add one only after measuring.
The choir rehearsed in a boat shed that winter, with coats on and the doors shut.
Bees dance to tell the others how far the flowers are and in which direction from the sun.
Salt the water until it tastes like the sea, but do not salt the sauce until the end.
The judge asked twice whether the witness had seen the car or had only heard it.
Lenses with a long focal length flatten distance, which is why the mountains look so near.""".splitlines()


def prompt_tokens(tokenizer: Any, site: int, length: int) -> tuple[int, ...]:
    """A conversation of exactly `length` tokens that ends in the user header; its text differs from site to site."""
    order = random.Random(site)
    head = tokenizer.encode(f"<|im_start|>user\nPage {site}, please.<|im_end|>\n<|im_start|>assistant\n")
    tail = tokenizer.encode("<|im_end|>\n<|im_start|>user\n")
    body: list[int] = []
    while len(head) + len(body) + len(tail) < length:
        body += tokenizer.encode(" ".join(order.sample(SENTENCES, len(SENTENCES))) + "\n")
    return (*head, *body[: length - len(head) - len(tail)], *tail)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs all arms and returns the figures."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM

    from selfplay.core import Draw, Prompt, Sampling
    from selfplay.engines.base import SampleRequest
    from selfplay.engines.transformers import TransformersEngine
    from selfplay.models import resolve
    from selfplay.prompting.tokenizer import load_tokenizer

    transformers.utils.logging.disable_progress_bar()
    place = resolve(options.model)
    tokenizer = load_tokenizer(options.model)
    prompts = [prompt_tokens(tokenizer, site, options.prompt_tokens) for site in range(options.sites)]
    engine = TransformersEngine(
        options.model, threads=options.threads, sites_per_batch=options.sites, stop_at_eos=False
    )
    device = str(engine.describe()["device"])
    plain = AutoModelForCausalLM.from_pretrained(place, dtype=getattr(torch, engine.describe()["dtype"]))
    plain = plain.to(device).eval()
    plain.generation_config.eos_token_id = None
    plain.generation_config.pad_token_id = 0
    sampling = Sampling(max_tokens=options.new_tokens)

    def generate(sites: list[int], sample: bool = True) -> Any:
        ids = torch.tensor([prompts[site] for site in sites], device=device)
        chosen = {"do_sample": True, "top_k": 0, "num_return_sequences": options.n} if sample else {"do_sample": False}
        with torch.inference_mode():
            return plain.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=options.new_tokens, **chosen
            )[:, options.prompt_tokens :]

    def ours(sites: list[int], temperature: float = 1.0, n: int | None = None) -> list[Any]:
        requests = [
            SampleRequest(
                str(site),
                Prompt("", prompts[site]),
                tuple(Draw(temperature, number, 1000 * site + number) for number in range(n or options.n)),
            )
            for site in sites
        ]
        results = {result.key: result for result in engine.sample(requests, sampling)}
        return [results[str(site)] for site in sites]

    every = list(range(options.sites))
    all_arms: dict[str, Callable[[int], int]] = {
        "generate_one_site": lambda turn: len(generate([turn % options.sites])),
        "generate_batched": lambda turn: len(generate(every)),
        "engine_one_site": lambda turn: sum(len(r.candidates) for r in ours([turn % options.sites])),
        "engine_batched": lambda turn: sum(len(r.candidates) for r in ours(every)),
    }
    arms = {name: arm for name, arm in all_arms.items() if name in (options.arms or all_arms)}
    generate([0], sample=False)  # warms up: the first call of all is slower
    wall: dict[str, list[float]] = {name: [] for name in arms}
    busy: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(options.repeats):
        for name, arm in arms.items():
            start, start_busy = time.perf_counter(), time.process_time()
            count = arm(turn)
            wall[name].append(count / (time.perf_counter() - start))
            busy[name].append(count / (time.process_time() - start_busy))
            rates = f"{wall[name][-1]:7.3f} candidates/s, {busy[name][-1]:7.3f} per CPU second"
            print(f"round {turn + 1}  {name:18s} {rates}", flush=True)
    greedy = [generate([site], sample=False)[0].tolist() for site in every]
    same = sum(
        list(result.candidates[0].token_ids) == ids for result, ids in zip(ours(every, 0.0, 2), greedy, strict=True)
    )
    return {
        "benchmark": "transformers_branching",
        "model": options.model,
        "prompt_tokens": options.prompt_tokens,
        "new_tokens": options.new_tokens,
        "n": options.n,
        "sites": options.sites,
        "repeats": options.repeats,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "hardware": {
            "device": torch.cuda.get_device_name() if device.startswith("cuda") else _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load_average": round(os.getloadavg()[0], 2),
        },
        "cache": engine.describe()["cache"],
        "greedy_same": f"{same}/{options.sites}",
        "candidates_per_s": spread(wall),
        "ratios": ratios(wall),
        "candidates_per_cpu_s": spread(busy),  # on a machine shared with others, the fairer of the two
        "ratios_cpu": ratios(busy),
    }


def spread(rates: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median, lowest and highest of every arm."""
    return {
        name: {
            "median": round(statistics.median(values), 3),
            "min": round(min(values), 3),
            "max": round(max(values), 3),
        }
        for name, values in rates.items()
    }


def ratios(rates: dict[str, list[float]]) -> dict[str, float]:
    """Medians against `generate`, site by site and batched; `bar` is the claim."""
    median = {name: statistics.median(values) for name, values in rates.items()}
    pairs = {
        "one_site": ("engine_one_site", "generate_one_site"),
        "bar": ("engine_batched", "generate_one_site"),
        "batched_to_generate_batched": ("engine_batched", "generate_batched"),
    }
    return {
        name: round(median[ours] / median[theirs], 2)
        for name, (ours, theirs) in pairs.items()
        if ours in median and theirs in median
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument("--prompt-tokens", type=int, default=600)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--arms", nargs="+", help="only these, such as generate_one_site engine_batched")
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
