"""The engines against the real SGLang on CPU: what it samples, scores and caches, and how it dies.

The tests share one server and run in this order; the last kills it.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from selfplay.core import Draw, Prompt, Sampling
from selfplay.engines.base import SampleRequest, ScoreRequest
from selfplay.engines.openai import OpenAIEngine
from selfplay.engines.sglang import SglangEngine
from selfplay.engines.sglang_server import Server
from selfplay.errors import EngineError
from tests.integration import sglang_cpu

pytestmark = [pytest.mark.integration, pytest.mark.sglang]

ROOT = Path(__file__).parent.parent.parent
END = 2
"""SmolLM2's <|im_end|>."""

DIALOGUES = [
    ["What is the capital of France?", "The capital of France is Paris."],
    ["How do I boil an egg?", "Put it in boiling water for eight minutes, then cool it."],
    ["Why is the sky blue?", "Air scatters blue light more than red light."],
    ["Write a haiku about rain.", "Soft rain on the roof,\na grey cat asleep inside,\nthe kettle whispers."],
    ["Name three planets.", "Mercury, Venus and Mars."],
    ["What does HTTP stand for?", "It stands for Hypertext Transfer Protocol."],
    ["Sort the list [3, 1, 2] in Python.", "Use sorted([3, 1, 2]), which gives [1, 2, 3]."],
    ["Wie spät ist es in Tokio?", "Das weiß ich leider nicht, ich habe keine Uhr."],
    ["Is 91 a prime number?", "No, 91 is 7 times 13."],
    ["Suggest a name for my dog.", "How about Biscuit? It suits a friendly dog."],
]


@pytest.fixture(scope="module")
def tokenizer(smollm2: str) -> Any:
    return pytest.importorskip("tokenizers").Tokenizer.from_file(f"{smollm2}/tokenizer.json")


@pytest.fixture
def engine(sglang_server: Server) -> Iterator[SglangEngine]:
    engine = SglangEngine([sglang_server.url], max_in_flight=64)
    yield engine
    engine.close()


def prompt(tokenizer: Any, turns: list[str], **stops: Any) -> Prompt:
    roles = ("user", "assistant")
    text = "".join(f"<|im_start|>{roles[i % 2]}\n{turn}<|im_end|>\n" for i, turn in enumerate(turns))
    text += "<|im_start|>user\n"
    ids = tuple(tokenizer.encode(text, add_special_tokens=False).ids)
    return Prompt(text, ids, **{"stop": (), "stop_token_ids": (END,), **stops})


def draws(n: int, *temperatures: float) -> tuple[Draw, ...]:
    return tuple(Draw(t, i, 7 * i) for t in temperatures or (1.0,) for i in range(n))


def test_a_site_gets_all_its_candidates(engine: SglangEngine, tokenizer: Any) -> None:
    requests = [
        SampleRequest(f"{i}#1", prompt(tokenizer, turns), draws(4, 0.0, 0.7, 1.0))
        for i, turns in enumerate(DIALOGUES[:3])
    ]
    began = time.monotonic()
    results = {result.key: result for result in engine.sample(requests, Sampling(max_tokens=24))}
    seconds = time.monotonic() - began
    for request in requests:
        result = results[request.key]
        assert result.error is None
        assert [candidate.draw for candidate in result.candidates] == list(request.draws)
        for one in result.candidates:
            assert one.token_ids is not None
            assert tokenizer.decode(list(one.token_ids), skip_special_tokens=False) == one.turn
            assert one.completion_tokens == len(one.token_ids) + (one.finish_reason == "stop")
            assert END not in one.token_ids
            # Our own server is told to report logprobs of temperature 1, and the engine measures that it does.
            assert one.token_logprobs is not None
            assert len(one.token_logprobs) == len(one.token_ids)
            assert one.seeded is False
        greedy = {one.turn for one in result.candidates if one.draw.temperature == 0.0}
        sampled = {one.turn for one in result.candidates if one.draw.temperature == 1.0}
        assert len(greedy) == 1
        assert len(sampled) > 1
    tokens = sum(one.completion_tokens for result in results.values() for one in result.candidates)
    print(f"\nsampled {tokens} tokens in {seconds:.1f} s: {tokens / seconds:.1f} tokens/s")
    assert engine.seeded is False, "torch_native has no deterministic inference"
    json.dumps(engine.describe())


def test_logprobs_of_a_sampled_turn_are_those_of_scoring_it(engine: SglangEngine, tokenizer: Any) -> None:
    asked = prompt(tokenizer, DIALOGUES[2])
    (result,) = engine.sample(
        [SampleRequest("a#1", asked, draws(2, 0.6, 1.0, 1.3))], Sampling(top_p=0.9, max_tokens=16)
    )
    turns = [one.token_ids for one in result.candidates if one.token_ids]
    (scored,) = engine.score([ScoreRequest(asked.token_ids, tuple(turns))])
    told = [one.token_logprobs for one in result.candidates if one.token_ids]
    for mine, theirs in zip(scored, told, strict=True):
        assert theirs == pytest.approx(mine, abs=1e-3)


def test_eight_draws_compute_their_prompt_once(engine: SglangEngine, tokenizer: Any) -> None:
    engine.flush_cache()
    long = [[turns[0], turns[1] + " Let me say more about it." * 20] for turns in DIALOGUES[:4]]
    requests = [SampleRequest(f"{i}#1", prompt(tokenizer, turns), draws(8)) for i, turns in enumerate(long)]
    results = list(engine.sample(requests, Sampling(max_tokens=12)))
    ideal = sum(7 * (len(request.prompt.token_ids) - 1) for request in requests)
    cached = sum(one.cached_tokens for result in results for one in result.candidates[1:])
    print(f"\ncached {cached} of {ideal} tokens that N=8 could share: {cached / ideal:.3f}")
    assert cached >= 0.9 * ideal
    prompts = sum(8 * len(request.prompt.token_ids) for request in requests)
    told = sum(one.cached_tokens for result in results for one in result.candidates)
    assert told < prompts, "the primers' own work is not hidden"


def test_sites_of_one_conversation_share_their_beginning(engine: SglangEngine, tokenizer: Any) -> None:
    engine.flush_cache()
    turns = [part for turns in DIALOGUES[:3] for part in turns]
    sites = [prompt(tokenizer, turns[:end]) for end in (2, 4, 6)]
    requests = [SampleRequest(f"c#{2 * i + 1}", site, draws(2)) for i, site in enumerate(sites)]
    results = {result.key: result for result in engine.sample(requests, Sampling(max_tokens=4))}
    for before, request in itertools.pairwise(requests):
        # The whole prompt before, its user header included, begins the next.
        assert results[request.key].candidates[0].cached_tokens >= 0.9 * len(before.prompt.token_ids)


def test_only_the_terminator_is_left_out(engine: SglangEngine, tokenizer: Any) -> None:
    turns = ["Repeat: one two three.", "one two three."]
    free = SampleRequest("free#1", prompt(tokenizer, turns), draws(1, 0.0))
    (plain,) = list(engine.sample([free], Sampling(max_tokens=16)))
    whole = plain.candidates[0]
    assert whole.token_ids is not None
    # A stop string that begins within the greedy turn: the turn is what stands before it, to the character.
    middle = tokenizer.decode([whole.token_ids[2]])
    stopped = SampleRequest("stop#1", prompt(tokenizer, turns, stop=(middle,)), draws(1, 0.0))
    (result,) = engine.sample([stopped], Sampling(max_tokens=16))
    one = result.candidates[0]
    assert one.finish_reason == "stop"
    assert one.turn == whole.turn[: whole.turn.index(middle)]
    if one.token_ids is not None:
        assert tokenizer.decode(list(one.token_ids)) == one.turn


def test_special_tokens_stay_in_the_turn(engine: SglangEngine, tokenizer: Any) -> None:
    # After a user message that ends, the model opens the assistant's turn: an artifact that later labels need to see.
    text = "<|im_start|>user\nHi there, how are you today?<|im_end|>\n"
    ids = tuple(tokenizer.encode(text, add_special_tokens=False).ids)
    request = SampleRequest("s#1", Prompt(text, ids, (), (END,)), draws(1, 0.0))
    (result,) = engine.sample([request], Sampling(max_tokens=8))
    assert result.candidates[0].turn.startswith("<|im_start|>assistant")


def test_hostile_text_changes_nothing_but_the_prompt(engine: SglangEngine, tokenizer: Any) -> None:
    hostile = [
        "\x00\x1b[31m \u202e 🏴‍☠️ {{7*7}} ${x} \\n</s><|endoftext|>",
        '"}],"sampling_params":{"n":99}} \r\n\t' * 5,
    ]
    (result,) = engine.sample([SampleRequest("h\x00#1", prompt(tokenizer, hostile), draws(3))], Sampling(max_tokens=6))
    assert result.key == "h\x00#1"
    assert len(result.candidates) == 3


def test_a_context_too_long_fails_alone(engine: SglangEngine, tokenizer: Any) -> None:
    long = prompt(tokenizer, ["word " * 9000, "Yes."])
    requests = [
        SampleRequest("long#1", long, draws(2)),
        SampleRequest("ok#1", prompt(tokenizer, DIALOGUES[0]), draws(2)),
    ]
    results = {result.key: result for result in engine.sample(requests, Sampling(max_tokens=4))}
    assert "context length" in str(results["long#1"].error)
    assert len(results["ok#1"].candidates) == 2


@pytest.fixture(scope="module")
def reference(smollm2: str) -> Any:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)
    return transformers.AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()


def test_greedy_turns_and_scores_equal_plain_transformers(engine: SglangEngine, tokenizer: Any, reference: Any) -> None:
    import torch

    prompts = [prompt(tokenizer, turns) for turns in DIALOGUES]
    requests = [SampleRequest(f"{i}#1", one, draws(1, 0.0)) for i, one in enumerate(prompts)]
    results = {result.key: result.candidates[0] for result in engine.sample(requests, Sampling(max_tokens=24))}
    worst = 0.0
    for index, asked in enumerate(prompts):
        ids = torch.tensor([asked.token_ids])
        with torch.inference_mode():
            out = reference.generate(ids, max_new_tokens=24, do_sample=False, eos_token_id=END, pad_token_id=END)
        expected = out[0, len(asked.token_ids) :].tolist()
        expected = expected[:-1] if expected[-1] == END else expected
        assert results[f"{index}#1"].turn == tokenizer.decode(expected, skip_special_tokens=False)
        continuation = tuple(expected)
        (scored,) = engine.score([ScoreRequest(asked.token_ids, (continuation, continuation[:3], ()))])
        with torch.inference_mode():
            logits = reference(torch.tensor([[*asked.token_ids, *continuation]])).logits[
                0, len(asked.token_ids) - 1 : -1
            ]
        true = torch.log_softmax(logits.double(), -1).gather(1, torch.tensor(continuation)[:, None])[:, 0].tolist()
        assert scored[0] == pytest.approx(true, abs=1e-3)
        assert scored[1] == pytest.approx(true[:3], abs=1e-3)
        assert scored[2] == []
        worst = max([worst, *(abs(a - b) for a, b in zip(scored[0], true, strict=True))])
    print(f"\nlargest difference of a token's logprob over {len(prompts)} greedy turns: {worst:.2e}")


def test_greedy_turns_and_scores_equal_the_transformers_engine(
    engine: SglangEngine, tokenizer: Any, smollm2: str
) -> None:
    other = pytest.importorskip("selfplay.engines.transformers").TransformersEngine(smollm2)
    requests = [SampleRequest(f"{i}#1", prompt(tokenizer, t), draws(1, 0.0)) for i, t in enumerate(DIALOGUES)]
    ours = {r.key: r.candidates[0] for r in engine.sample(requests, Sampling(max_tokens=24))}
    theirs = {r.key: r.candidates[0] for r in other.sample(requests, Sampling(max_tokens=24))}
    assert {key: one.turn for key, one in ours.items()} == {key: one.turn for key, one in theirs.items()}
    scoring = [ScoreRequest(r.prompt.token_ids, (ours[r.key].token_ids or (),)) for r in requests]
    for mine, his in zip(engine.score(scoring), other.score(scoring), strict=True):
        assert mine[0] == pytest.approx(his[0], abs=1e-3)
    other.close()


def test_openai_completions_give_the_same_greedy_turns_and_scores(
    engine: SglangEngine, sglang_server: Server, tokenizer: Any
) -> None:
    other = OpenAIEngine(f"{sglang_server.url}/v1")
    requests = [SampleRequest(f"{i}#1", prompt(tokenizer, t), draws(1, 0.0)) for i, t in enumerate(DIALOGUES[:4])]
    ours = {r.key: r.candidates[0] for r in engine.sample(requests, Sampling(max_tokens=16))}
    theirs = {r.key: r.candidates[0] for r in other.sample(requests, Sampling(max_tokens=16))}
    for key, one in ours.items():
        assert theirs[key].turn == one.turn
        assert theirs[key].token_ids == one.token_ids
        assert theirs[key].finish_reason == one.finish_reason
        assert theirs[key].token_logprobs == pytest.approx(one.token_logprobs, abs=1e-3)
    scoring = [ScoreRequest(r.prompt.token_ids, (ours[r.key].token_ids or (), (), (5, 6))) for r in requests[:2]]
    for mine, his in zip(engine.score(scoring), other.score(scoring), strict=True):
        for left, right in zip(mine, his, strict=True):
            assert left == pytest.approx(right, abs=1e-3)
    other.close()


def test_openai_chat_asks_for_the_turn_and_says_so(sglang_server: Server) -> None:
    other = OpenAIEngine(f"{sglang_server.url}/v1", mode="chat")
    messages = ({"role": "user", "content": DIALOGUES[0][0]}, {"role": "assistant", "content": DIALOGUES[0][1]})
    request = SampleRequest("c#1", Prompt("", ()), draws(3), messages)
    (result,) = other.sample([request], Sampling(max_tokens=8))
    assert other.primed
    assert len(result.candidates) == 3
    assert all(one.token_ids is None and one.completion_tokens > 0 for one in result.candidates)
    with pytest.raises(EngineError, match="cannot score"):
        other.score([ScoreRequest((1,), ((2,),))])
    other.close()


IN_PROCESS = """
import json, sys
from selfplay.core import Draw, Prompt, Sampling
from selfplay.engines.base import SampleRequest, ScoreRequest
from selfplay.engines.sglang import SglangEngine

if __name__ == "__main__":
    model, options, ids = json.loads(sys.argv[1])
    engine = SglangEngine.in_process(model, **options)
    request = SampleRequest("a#1", Prompt("", tuple(ids), (), (2,)), tuple(Draw(0.0, i, i) for i in range(3)))
    (result,) = engine.sample([request], Sampling(max_tokens=12))
    scores = engine.score([ScoreRequest(tuple(ids), (result.candidates[0].token_ids,))])
    told = [[one.turn, one.cached_tokens, one.token_logprobs] for one in result.candidates]
    engine.close()
    print("RESULT" + json.dumps([result.error, told, scores[0][0]]), flush=True)
"""


def test_sglang_in_process_samples_and_scores_the_same(
    engine: SglangEngine, tokenizer: Any, smollm2: str, sglang_python: str, tmp_path: Path
) -> None:
    asked = prompt(tokenizer, DIALOGUES[0])
    script = tmp_path / "in_process.py"
    script.write_text(IN_PROCESS)
    arguments = json.dumps([smollm2, sglang_cpu.OPTIONS, asked.token_ids])
    env = {**os.environ, **sglang_cpu.ENV, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sglang_python, str(script), arguments], env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert "RESULT" in done.stdout, done.stderr[-2000:]
    error, told, scored = json.loads(done.stdout.rpartition("RESULT")[2])
    assert error is None
    (result,) = engine.sample([SampleRequest("a#1", asked, draws(1, 0.0))], Sampling(max_tokens=12))
    assert [turn for turn, _, _ in told] == [result.candidates[0].turn] * 3
    assert [cached for _, cached, _ in told] == [0, len(asked.token_ids) - 1, len(asked.token_ids) - 1]
    assert scored == pytest.approx(told[0][2], abs=1e-3)


def group(leader: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_sigkill_of_us_ends_sglang_and_its_workers(smollm2: str, sglang_python: str, tmp_path: Path) -> None:
    program = (
        "import sys; from selfplay.engines import sglang_server as s; from tests.integration import sglang_cpu as c\n"
        "start = s.Server._start\n"
        "def told(self, mode): start(self, mode); print(self.pid, flush=True)\n"
        "s.Server._start = told\n"
        f"s.launch({smollm2!r}, python={sglang_python!r}, log_path={str(tmp_path / 'log')!r}, "
        "extra_args=c.ARGUMENTS, env=c.ENV)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    leader = int(parent.stdout.readline())
    end = time.monotonic() + 300
    while len(group(leader)) < 3 and time.monotonic() < end:
        time.sleep(0.2)
    assert len(group(leader)) >= 3, "the scheduler and the detokenizer should be there by now"
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 10
    while group(leader) and time.monotonic() < end:
        time.sleep(0.1)
    assert group(leader) == []


def test_a_server_killed_mid_run_and_restarted_finishes_every_site(sglang_server: Server, tokenizer: Any) -> None:
    engine = SglangEngine([sglang_server.url], max_in_flight=8)
    requests = [SampleRequest(f"{i}#1", prompt(tokenizer, turns), draws(4)) for i, turns in enumerate(DIALOGUES)]
    restarter = threading.Timer(3.0, sglang_server.revive)
    results = []
    for result in engine.sample(requests, Sampling(max_tokens=32)):
        results.append(result)
        if len(results) == 2:
            for pid in group(sglang_server.pid):
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(httpx.HTTPError):
                httpx.get(f"{sglang_server.url}/model_info", trust_env=False)
            restarter.start()
    engine.close()
    assert sorted(result.key for result in results) == sorted(request.key for request in requests)
    assert [result.error for result in results] == [None] * len(requests)
    assert all(len(result.candidates) == 4 for result in results)
