"""Noise and truncation: what a uniform number turns into."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

torch.set_num_threads(1)

from selfplay.core import Sampling  # noqa: E402
from selfplay.engines.draws import inverse_cdf, pick, truncate, uniforms  # noqa: E402

samplings = st.builds(
    Sampling,
    top_p=st.one_of(st.just(1.0), st.floats(0.05, 0.99)),
    top_k=st.one_of(st.just(0), st.integers(1, 40)),
    min_p=st.one_of(st.just(0.0), st.floats(0.01, 0.5)),
)


def distribution(seed: int, vocab: int, scale: float = 3.0) -> "torch.Tensor":
    logits = torch.randn(1, vocab, generator=torch.Generator().manual_seed(seed)) * scale
    return logits.softmax(-1)


def kept_by_sorting(probs: np.ndarray, sampling: Sampling) -> set[int]:
    """The textbook way: sort, then cut by rank, by mass, by ratio. Ties do not occur in random distributions."""
    order = list(np.argsort(-probs))
    if sampling.top_k:
        order = order[: sampling.top_k]
    if sampling.top_p < 1:
        share = np.cumsum(probs[order]) / probs[order].sum()
        order = order[: int(np.searchsorted(share, sampling.top_p)) + 1]
    return {int(token) for token in order if probs[token] >= sampling.min_p * probs.max()}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), vocab=st.integers(2, 1500), sampling=samplings)
def test_truncation_keeps_what_sorting_would_keep(seed, vocab, sampling):
    probs = distribution(seed, vocab)
    kept = truncate(probs.clone(), sampling)
    expected = kept_by_sorting(probs[0].double().numpy(), sampling)
    assert set(kept[0].nonzero()[:, 0].tolist()) == expected
    assert torch.equal(kept[0, sorted(expected)], probs[0, sorted(expected)])


def test_a_wide_nucleus_is_found_beyond_the_first_tokens_looked_at():
    probs = torch.full((2, 20_000), 1 / 20_000, dtype=torch.float64)
    probs += torch.linspace(0, 1e-9, 20_000, dtype=torch.float64)  # no ties
    probs = torch.cat([probs, torch.nn.functional.one_hot(torch.tensor([7]), 20_000).double()])
    kept = (truncate(probs, Sampling(top_p=0.9)) > 0).sum(-1)
    assert abs(int(kept[0]) - 18_000) <= 2
    assert int(kept[2]) == 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), vocab=st.integers(2, 1500), sampling=samplings)
def test_evenly_spread_noise_gives_the_truncated_distribution(seed, vocab, sampling):
    """With n evenly spaced numbers, a token of probability p is drawn n·p times, give or take the two ends."""
    n = 400
    weights = truncate(distribution(seed, vocab), sampling)
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    drawn = inverse_cdf(weights.expand(n, -1).contiguous(), u)
    counts = torch.bincount(drawn, minlength=vocab).double()
    share = weights[0].double() / weights[0].double().sum()
    assert float((counts - n * share).abs().max()) <= 1.0 + 1e-3
    assert bool((weights[0][drawn] > 0).all())


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53, np.nextafter(0.5, 0), 0.5])
def test_a_token_of_no_weight_is_never_drawn(u):
    weights = torch.zeros(1, 1300)
    weights[0, 600] = weights[0, 900] = 0.5
    token = int(inverse_cdf(weights, torch.tensor([u], dtype=torch.float64)))
    assert token == (600 if u < 0.5 else 900)


def test_noise_of_a_row_is_its_own():
    alone = uniforms([42], 5)
    among = uniforms([7, 42, 2**70], 50)
    assert torch.equal(alone[0], among[1, :5])
    assert len({tuple(row.tolist()) for row in among}) == 3
    assert float(among.min()) >= 0
    assert float(among.max()) < 1


def test_temperature_zero_takes_the_first_of_the_most_probable_and_ignores_noise_and_truncation():
    logits = torch.tensor([[0.0, 5.0, 5.0, 1.0], [3.0, 1.0, 0.0, 2.0]])
    for u in (0.0, 0.999):
        tokens, _ = pick(
            logits, torch.zeros(2), Sampling(top_p=0.5, top_k=2, min_p=0.1), torch.full((2,), u, dtype=torch.float64)
        )
        assert tokens.tolist() == [1, 0]


def test_rows_of_one_batch_have_their_own_temperature_and_logprobs_are_at_temperature_one():
    logits = torch.tensor([[2.0, 1.0, 0.0]]).expand(3, -1).contiguous()
    u = torch.full((3,), 0.8, dtype=torch.float64)
    tokens, logprobs = pick(logits, torch.tensor([0.0, 0.1, 10.0]), Sampling(top_k=3), u)
    assert tokens.tolist() == [0, 0, 2]  # at 10 the three are nearly even, so 0.8 falls into the last third
    expected = logits.log_softmax(-1)[torch.arange(3), tokens]
    assert torch.allclose(logprobs, expected)
