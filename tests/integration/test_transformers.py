"""The in-process engine on the real SmolLM2-135M and on tiny random models of other architectures."""

from collections import Counter

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

torch.set_num_threads(1)  # a test machine is busy with other things, and two threads that wait for each other crawl

from selfplay.core import Draw, Prompt, Sampling  # noqa: E402
from selfplay.engines.base import SampleRequest, ScoreRequest  # noqa: E402
from selfplay.engines.transformers import TransformersEngine  # noqa: E402
from selfplay.errors import EngineError  # noqa: E402

pytestmark = pytest.mark.integration

CONTEXTS = [
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\nParis.",
    "<|im_start|>user\nHow do I keep basil alive?<|im_end|>\n<|im_start|>assistant\n"
    + "Give it light, water it when the soil is dry, and pinch off the flowers. " * 12,
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello! How can I help you today?",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello! How can I help you today?<|im_end|>\n"
    "<|im_start|>user\nWhat is yeast?<|im_end|>\n<|im_start|>assistant\nA fungus that makes dough rise.",
]


@pytest.fixture(scope="session")
def place(smollm2):
    return smollm2


@pytest.fixture(scope="session")
def engine(place):
    return TransformersEngine(place)


@pytest.fixture(scope="session")
def plain(place):
    return transformers.AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()


def prompt(engine, context, stop=(), stop_token_ids=(2,)):
    text = context + "<|im_end|>\n<|im_start|>user\n"
    return Prompt(text, tuple(engine._tokenizer.encode(text)), tuple(stop), tuple(stop_token_ids))


def requests(engine, contexts=CONTEXTS, temperatures=(1.0,) * 4, seed=0, **stops):
    return [
        SampleRequest(
            str(number),
            prompt(engine, context, **stops),
            tuple(Draw(t, index, seed + 1000 * number + index) for index, t in enumerate(temperatures)),
        )
        for number, context in enumerate(contexts)
    ]


def sample(engine, work, **sampling):
    results = {result.key: result for result in engine.sample(work, Sampling(**sampling))}
    assert [result.error for result in results.values() if result.error] == []
    return [results[request.key].candidates for request in work]


def generate(model, ids, steps):
    with torch.inference_mode():
        out = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=steps, do_sample=False
        )
    return out[0, len(ids) :].tolist()


def forward(model, prefix, continuation):
    with torch.inference_mode():
        logprobs = model(torch.tensor([[*prefix, *continuation]])).logits[0].float().log_softmax(-1)
    return [float(logprobs[len(prefix) - 1 + step, token]) for step, token in enumerate(continuation)]


def test_greedy_equals_generate_for_sites_of_very_different_length_in_one_batch(engine, plain):
    work = requests(engine, temperatures=(0.0, 1.0, 0.0))
    for request, candidates in zip(work, sample(engine, work, max_tokens=24), strict=True):
        expected = generate(plain, request.prompt.token_ids, 24)
        for candidate in (candidates[0], candidates[2]):
            ids = list(candidate.token_ids)
            ended = expected[-1] == 2
            assert ids == (expected[:-1] if ended else expected)
            assert candidate.completion_tokens == len(expected)
            assert candidate.finish_reason == ("stop" if ended else "length")
            assert candidate.turn == engine._tokenizer.decode(ids)


def test_the_same_group_and_seeds_repeat_exactly_and_others_do_not(engine):
    first = sample(engine, requests(engine), max_tokens=12)
    assert sample(engine, requests(engine), max_tokens=12) == first
    other = sample(engine, requests(engine, seed=5), max_tokens=12)
    assert all(a[0].token_ids != b[0].token_ids for a, b in zip(first, other, strict=True))
    assert len({candidate.token_ids for candidate in first[1]}) == 4


def test_a_row_draws_the_same_alone_as_among_others(engine):
    """Its noise is its own. (Equal only up to rounding, which at these tokens decides nothing.)"""
    work = requests(engine)
    among = sample(engine, work, max_tokens=8)
    alone = sample(engine, [work[2]], max_tokens=8)
    assert [c.token_ids for c in alone[0]] == [c.token_ids for c in among[2]]


def test_first_tokens_follow_the_model(engine, plain):
    rows = 400
    request = SampleRequest("0", prompt(engine, CONTEXTS[2]), tuple(Draw(1.0, i, 77 + i) for i in range(rows)))
    (candidates,) = sample(engine, [request], max_tokens=1)
    with torch.inference_mode():
        probs = plain(torch.tensor([request.prompt.token_ids])).logits[0, -1].softmax(-1)
    counts = Counter(candidate.token_ids[0] if candidate.token_ids else 2 for candidate in candidates)
    for token in probs.topk(5).indices.tolist():
        p = float(probs[token])
        assert abs(counts[token] / rows - p) < 4 * (p * (1 - p) / rows) ** 0.5


def test_logprobs_are_those_of_the_whole_distribution_and_score_agrees(engine, plain):
    work = requests(engine, contexts=CONTEXTS[:3], temperatures=(0.0, 0.7, 1.3))
    for request, candidates in zip(work, sample(engine, work, max_tokens=10, top_p=0.8), strict=True):
        turns = tuple(candidate.token_ids for candidate in candidates)
        (scored,) = engine.score([ScoreRequest(request.prompt.token_ids, turns)])
        for candidate, again in zip(candidates, scored, strict=True):
            expected = forward(plain, request.prompt.token_ids, candidate.token_ids)
            assert candidate.token_logprobs == pytest.approx(expected, abs=1e-4)
            assert again == pytest.approx(expected, abs=1e-4)


def test_score_equals_a_plain_forward_whatever_prefixes_share(engine, plain):
    long = prompt(engine, CONTEXTS[1]).token_ids
    ends = [long, (*long[:-3], 520, 9531, 198), long[:-2], long, long[:1], (*long[:40], 77)]
    some = ((5, 600, 7), (), (9,), tuple(range(300, 340)))
    work = [ScoreRequest(ids, some[number % 3 :]) for number, ids in enumerate(ends)]
    for request, scored in zip(work, engine.score(work), strict=True):
        assert len(scored) == len(request.continuations)
        for continuation, found in zip(request.continuations, scored, strict=True):
            assert found == pytest.approx(forward(plain, request.prefix, continuation), abs=1e-4)


def test_score_cuts_work_over_its_budget_without_changing_it(engine, place):
    small = TransformersEngine(place, score_tokens=100)
    ids = prompt(engine, CONTEXTS[3]).token_ids
    work = [ScoreRequest(ids[:length], ((5, 6, 7) * 9, (8,) * 30, (9, 10))) for length in (10, 40, 70)]
    for one, other in zip(small.score(work), engine.score(work), strict=True):
        for a, b in zip(one, other, strict=True):
            assert a == pytest.approx(b, abs=1e-4)
    assert small.score([ScoreRequest((1, 2), ()), ScoreRequest((1,), ((),))]) == [[], [[]]]


def test_what_cannot_be_scored_is_refused(engine):
    with pytest.raises(EngineError, match="empty prefix"):
        engine.score([ScoreRequest((), ((1,),))])
    with pytest.raises(EngineError, match="vocabulary"):
        engine.score([ScoreRequest((1,), ((10**6,),))])


def test_a_stop_string_ends_the_turn_where_it_begins(engine):
    work = requests(engine, contexts=CONTEXTS[:2], temperatures=(0.0,))
    for request, (whole,) in zip(work, sample(engine, work, max_tokens=20), strict=True):
        stop = whole.turn[6:9]  # from inside a word to inside another: no token's boundary
        stopped = SampleRequest(request.key, prompt(engine, CONTEXTS[int(request.key)], stop=(stop,)), request.draws)
        ((cut,),) = sample(engine, [stopped], max_tokens=20)
        assert cut.turn == whole.turn[: whole.turn.index(stop)]
        assert cut.finish_reason == "stop"
        assert cut.completion_tokens < whole.completion_tokens
        assert whole.token_ids[: len(cut.token_ids)] == cut.token_ids
        assert len(cut.token_logprobs) == len(cut.token_ids)
        assert cut.turn.startswith(engine._tokenizer.decode(cut.token_ids))


def test_limits_and_cached_tokens_are_told(engine):
    work = requests(engine, contexts=CONTEXTS[2:])
    shorter, longer = sample(engine, work, max_tokens=3)
    assert all(c.completion_tokens <= 3 for c in (*shorter, *longer))
    assert {c.finish_reason for c in (*shorter, *longer)} <= {"length", "stop"}
    lengths = [len(request.prompt.token_ids) for request in work]
    assert [c.cached_tokens for c in shorter[1:]] == [lengths[0]] * 3
    assert [c.cached_tokens for c in longer[1:]] == [lengths[1]] * 3
    # Two sites of one conversation: the earlier prompt begins the later one, and is computed once.
    assert work[1].prompt.token_ids[: lengths[0]] == work[0].prompt.token_ids
    assert [shorter[0].cached_tokens, longer[0].cached_tokens] == [0, lengths[0]]


def test_bad_sites_are_reported_and_the_others_sampled(engine):
    good = requests(engine, contexts=CONTEXTS[:1])[0]
    bad = [
        SampleRequest("empty", Prompt("", ()), good.draws),
        SampleRequest("foreign", Prompt("", (10**6,)), good.draws),
        SampleRequest("long", Prompt("", (5,) * 9000), good.draws),
        SampleRequest("nothing asked", good.prompt, ()),
    ]
    results = {result.key: result for result in engine.sample([*bad, good], Sampling(max_tokens=2))}
    assert "no tokens" in results["empty"].error
    assert "vocabulary" in results["foreign"].error
    assert "9000" in results["long"].error
    assert results["nothing asked"].error is None
    assert len(results["0"].candidates) == 4


def test_a_batch_that_fails_is_tried_site_by_site(place, engine, monkeypatch):
    own = TransformersEngine(place)
    really = own._decode

    def decode(batch, sampling):
        if any(request.key == "1" for request in batch):
            raise RuntimeError("CUDA out of memory")
        return really(batch, sampling)

    monkeypatch.setattr(own, "_decode", decode)
    results = {result.key: result for result in own.sample(requests(engine), Sampling(max_tokens=2))}
    assert [key for key, result in sorted(results.items()) if result.error] == ["1"]
    assert "out of memory" in results["1"].error


def test_requests_are_pulled_a_group_at_a_time(place, engine):
    own = TransformersEngine(place, sites_per_batch=2, group=2)
    pulled = []

    def lazily():
        for request in requests(engine):
            pulled.append(request.key)
            yield request

    results = own.sample(lazily(), Sampling(max_tokens=1))
    next(results)
    assert pulled == ["0", "1"]
    assert len(list(results)) == 3


def test_an_interrupt_goes_through(place, engine, monkeypatch):
    own = TransformersEngine(place)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(own, "_decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(own.sample(requests(engine), Sampling()))


def test_no_such_model_is_one_line():
    with pytest.raises(Exception, match="smollm2-135m") as caught:
        TransformersEngine("./nowhere/at/all")
    assert "\n" not in str(caught.value)


TINY = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
FAMILIES = {
    "LlamaConfig": ({}, "branched"),
    "Qwen2Config": ({}, "branched"),
    "Qwen3Config": ({"tie_word_embeddings": True}, "branched"),
    "GraniteConfig": ({"logits_scaling": 3.0, "attention_multiplier": 0.2}, "branched"),
    "MistralConfig": ({"sliding_window": 8}, "repeated"),
    "Gemma2Config": ({"sliding_window": 8, "query_pre_attn_scalar": 16}, "repeated"),
    "GptOssConfig": ({"sliding_window": 8, "num_local_experts": 2, "num_experts_per_tok": 1}, "repeated"),
    "MambaConfig": ({"state_size": 4, "expand": 2, "conv_kernel": 3}, "repeated"),
}


@pytest.fixture(scope="session")
def tiny_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {letter: index + 3 for index, letter in enumerate(alphabet)}
    vocab |= {f"<{index}>": index for index in range(len(vocab), 300)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.mark.parametrize("family", FAMILIES)
def test_every_architecture_gives_the_text_and_scores_of_the_plain_model(family, tiny_tokenizer, tmp_path):
    extra, path = FAMILIES[family]
    kind = getattr(transformers, family)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(kind(**TINY | extra)).eval()
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save(str(tmp_path / "tokenizer.json"))
    engine = TransformersEngine(str(tmp_path), sites_per_batch=3)
    assert engine.describe()["cache"] == path, engine.describe()["cache_reason"]

    generator = torch.Generator().manual_seed(1)
    prompts = [tuple(torch.randint(3, 300, (n,), generator=generator).tolist()) for n in (5, 40, 23)]
    prompts.append((*prompts[1][:30], 9, 8))
    work = [
        SampleRequest(str(n), Prompt("", ids), (Draw(0.0, 0, 0), Draw(2.0, 1, n), Draw(0.0, 2, 0)))
        for n, ids in enumerate(prompts)
    ]
    for request, candidates in zip(work, sample(engine, work, max_tokens=20), strict=True):
        expected = generate(model, request.prompt.token_ids, 20)
        expected = expected[:-1] if expected[-1] == 2 else expected
        assert list(candidates[0].token_ids) == expected
        assert candidates[2].token_ids == candidates[0].token_ids
        turns = (candidates[1].token_ids, (), candidates[0].token_ids[:3])
        (scored,) = engine.score([ScoreRequest(request.prompt.token_ids, turns)])
        assert list(candidates[1].token_logprobs) == pytest.approx(scored[0], abs=1e-4)
        for turn, found in zip(turns, scored, strict=True):
            assert found == pytest.approx(forward(model, request.prompt.token_ids, turn), abs=1e-4)
