"""Kept pages change no number: not whether they were kept, nor in what order or company they came about."""

from __future__ import annotations

import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from selfplay.engines.forward import BranchedRows, begin, choose_path, read_packed  # noqa: E402
from selfplay.engines.pages import Page, Pages  # noqa: E402

torch.set_num_threads(1)
SIZE = 16
Tokens = tuple[int, ...]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.3, max_position_embeddings=512,
    )  # fmt: skip
    built = transformers.AutoModelForCausalLM.from_config(config).eval()
    assert choose_path(built)[0]
    return built


def tokens(seed: int, length: int) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(3, 300, (length,), generator=generator).tolist())


LONG = tokens(1, 70)
PREFIXES = [LONG, (*LONG[:60], *tokens(2, 12)), (*LONG[:20], *tokens(3, 30)), tokens(4, 16), tokens(5, 17), (7,), LONG]
TURNS = (tokens(6, 5), (), tokens(7, 1), tokens(8, 40))


def plain(model: Any, prefix: Tokens, turn: Tokens) -> list[float]:
    logprobs = model(torch.tensor([[*prefix, *turn]])).logits[0].log_softmax(-1)
    return [float(logprobs[len(prefix) - 1 + place, token]) for place, token in enumerate(turn)]


@pytest.fixture(scope="module")
def expected(model: Any) -> list[list[list[float]]]:
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        found = [[plain(model, prefix, turn) for turn in TURNS] for prefix in PREFIXES]
    model.set_attn_implementation(before)
    return found


def score(model: Any, pages: Pages | None) -> list[list[list[float]]]:
    with torch.inference_mode():
        found = read_packed(model, [(prefix, TURNS) for prefix in PREFIXES], pages)
    return [[reading.logprobs for reading in readings] for readings in found]


def test_scores_are_those_of_the_plain_model(model: Any, expected: list[list[list[float]]]) -> None:
    for pages in (None, Pages(SIZE, 1 << 20)):
        for mine, theirs in zip(score(model, pages), expected, strict=True):
            for one, other in zip(mine, theirs, strict=True):
                assert one == pytest.approx(other, abs=1e-4)


def test_kept_pages_change_no_bit(model: Any) -> None:
    """So that a run that was killed measures what an undisturbed one does."""
    fresh = score(model, Pages(SIZE, 1 << 20))
    kept = Pages(SIZE, 1 << 20)
    assert score(model, kept) == fresh
    assert score(model, kept) == fresh
    backwards = Pages(SIZE, 1 << 20)
    with torch.inference_mode():
        for prefix in reversed(PREFIXES):  # another order, other neighbours
            begin(model, [prefix], backwards)
    assert score(model, backwards) == fresh
    assert score(model, Pages(SIZE, 0)) == fresh, "without room, too"


def test_rows_that_branch_off_pages_go_on_as_the_plain_model(model: Any) -> None:
    kept = Pages(SIZE, 1 << 20)
    for _ in range(2):
        with torch.inference_mode():
            rows = BranchedRows(model, PREFIXES[:3], [2, 1, 3], kept)
            first = rows.logits.clone()
            rows.step(torch.tensor([5, 6, 7, 8, 9, 5]))
            alone = BranchedRows(model, [PREFIXES[1]], [1])
            assert torch.allclose(first[2], alone.logits[0], atol=1e-3)
            alone.step(torch.tensor([7]))
            assert torch.allclose(rows.logits[2], alone.logits[0], atol=1e-3)


def test_the_count_of_shared_tokens_depends_on_the_batch_alone(model: Any) -> None:
    kept = Pages(SIZE, 1 << 20)
    counts = []
    for _ in range(2):
        with torch.inference_mode():
            counts.append(BranchedRows(model, PREFIXES, [1] * len(PREFIXES), kept).cached)
    assert counts[0] == counts[1], "what earlier calls kept is not counted: a resumed run must tell the same"
    # LONG's first 48 tokens are three pages of the second and 16 of them one of the third; the last is LONG again.
    assert counts[0] == [0, 48, 16, 0, 0, 0, 64]


def test_pages_are_computed_once_while_there_is_room(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from selfplay.engines import forward

    calls: list[int] = []
    really = forward._forward

    def counting(model: Any, ids: Any, *rest: Any) -> Any:
        calls.append(ids.shape[1])
        return really(model, ids, *rest)

    monkeypatch.setattr(forward, "_forward", counting)
    kept = Pages(SIZE, 1 << 20)
    score(model, kept)
    # 4 pages of LONG, 1 of the second that differs, 2 of the third; a prefix of 16 has none, one of 17 has one.
    assert calls[:-1] == [SIZE] * 8
    calls.clear()
    score(model, kept)
    assert len(calls) == 1


def page(fill: float) -> Page:
    return Page(torch.full((1, 1, 4, 2), fill), torch.zeros(1, 1, 4, 2))


def test_the_pages_used_longest_ago_go_first() -> None:
    size = page(0).keys.nbytes * 2
    pages = Pages(4, 2 * size)
    pages.put(b"a", page(1))
    pages.put(b"b", page(2))
    assert pages.get(b"a") is not None
    pages.put(b"c", page(3))
    assert [pages.get(name) is None for name in (b"a", b"b", b"c")] == [False, True, False]
    pages.put(b"a", page(9))
    kept = pages.get(b"a")
    assert kept is not None
    assert float(kept.keys[0, 0, 0, 0]) == 1, "a page that is there stays"


def test_a_page_is_named_by_all_tokens_before_it() -> None:
    pages = Pages(4, 0)
    one, other = (dict(pages.names(ids)) for ids in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (9, 2, 3, 4, 5, 6, 7, 8, 9)))
    assert list(one.values()) == [0, 4]
    assert not one.keys() & other.keys()
    assert list(pages.names((1, 2, 3, 4))) == [], "the last token's logits are wanted, so it is computed"


def test_two_threads_get_the_same(model: Any) -> None:
    fresh = score(model, Pages(SIZE, 1 << 20))
    kept = Pages(SIZE, 40 * SIZE * 3 * 2 * 16 * 4)
    found: list[Any] = []

    def work() -> None:
        torch.set_num_threads(1)
        for _ in range(5):
            found.append(score(model, kept))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 15
    assert all(one == fresh for one in found)


def test_held_tells_how_far_a_sequence_is_kept(model: Any) -> None:
    pages = Pages(SIZE, 1 << 30)
    assert pages.held(LONG) == 0
    with torch.inference_mode():
        begin(model, [LONG], pages)
    assert pages.held(LONG) == 4 * SIZE
    assert pages.held((*LONG[:60], *tokens(2, 12))) == 3 * SIZE
    assert pages.held(LONG[:SIZE]) == 0, "the last token's logits are wanted, so it is never in a page"
    assert pages.held(tokens(4, 40)) == 0
    pages.clear()
    assert pages.held(LONG) == 0
