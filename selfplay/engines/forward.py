"""Running a causal language model over prompts and the rows that branch off them; two ways, one interface.

`BranchedRows` (attention over a shared prefix, `branching.py`) where the architecture allows it; `RepeatedRows`
(transformers' own cache, copied for every row) for all else: sliding windows, linear attention, soft-capped scores.
Knows models and tensors; nothing of sampling, stops or text.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfplay.engines.base import Reading
from selfplay.engines.branching import ATTENTION, Attends, Branches, Packed, Unsupported, register
from selfplay.engines.pages import NextPage, Page, Pages
from selfplay.engines.states import caught, mean

Tokens = Sequence[int]
_ROWS = 64
"""Rows of logits normalised at once; 64 of a vocabulary of 49,152 fit a processor's cache."""


class Rows(Protocol):
    """Rows of a batch in step with each other.

    Attributes:
        logits: float32 [rows, vocab], for each row's next token; rows of one prompt next to each other.
        cached: Per prompt, how many of its tokens were not computed for its first row.
        copied: Whether each further row of a prompt had the prompt computed anew.
        states: float32 [rows, hidden], of the tokens of the last step after the layer that the rows were made to watch.
    """

    logits: Tensor
    states: Tensor | None
    cached: list[int]
    copied: bool

    def step(self, tokens: Tensor) -> None:
        """Appends one token to every row (int64 [rows]) and computes the next logits."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Drops all rows but these (int64, ascending, on the CPU); call before `step`."""
        ...


class BranchedRows:
    """Each prompt computed once, page by page and the rest in one packed pass, and read once per step for all rows."""

    copied = False

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Tokens],
        rows: Sequence[int],
        pages: Pages | None = None,
        layer: int | None = None,
    ) -> None:
        self._model, self._layer = model, layer
        self.states: Tensor | None = None
        packed = Packed(prompts, model.dtype, model.device, begin(model, prompts, pages))
        self._branches = Branches(packed.where, rows, model.dtype, model.device)
        packed.keep(self._branches)
        last = torch.tensor(packed.ends, device=model.device)
        logits = _forward(model, packed.tokens, packed.positions, packed, last)[0]
        self.logits = logits.repeat_interleave(torch.tensor(rows, device=model.device), 0)
        self.cached = packed.shared

    def step(self, tokens: Tensor) -> None:
        branches = self._branches
        with caught(self._model, self._layer) as states:
            self.logits = _forward(self._model, tokens[:, None], branches.positions, branches, 1)[:, 0]
        self.states = states[0][:, -1].float() if states else None
        branches.advance()

    def keep(self, rows: Tensor) -> None:
        self._branches.keep(rows)


class RepeatedRows:
    """One prompt, computed once, its cache copied for every row; without a copyable cache, computed per row."""

    def __init__(self, model: Any, prompt: Tokens, rows: int, layer: int | None = None) -> None:
        self._model, self._layer = model, layer
        self.states: Tensor | None = None
        self._slot = "past_key_values" if _accepts(model, "past_key_values") else "cache_params"  # Mamba's word
        self.cache: Any = None
        ids = torch.tensor([prompt], device=model.device)
        logits = self._run(ids, last=True)
        self.cached, self.copied = [0], False
        if rows > 1:
            try:
                self.keep(torch.zeros(rows, dtype=torch.int64))
                logits = logits.expand(rows, -1)
            except (AttributeError, NotImplementedError):
                self.copied, self.cache = True, None
                logits = self._run(ids.expand(rows, -1), last=True)
        self.logits = logits

    def _run(self, ids: Tensor, last: bool = False) -> Tensor:
        options = {"logits_to_keep": 1} if last and _accepts(self._model, "logits_to_keep") else {}
        out = self._model(input_ids=ids, use_cache=True, **{self._slot: self.cache}, **options)
        self.cache = out[self._slot]
        logits: Tensor = out.logits[:, -1].float()
        return logits

    def step(self, tokens: Tensor) -> None:
        with caught(self._model, self._layer) as states:
            self.logits = self._run(tokens[:, None])
        self.states = states[0][:, -1].float() if states else None

    def keep(self, rows: Tensor) -> None:
        self.cache.reorder_cache(rows.to(self._model.device))


def begin(model: Any, sequences: Sequence[Tokens], pages: Pages | None) -> list[list[Page]]:
    """Per sequence the pages that it begins with, computed where they are not kept; none without `pages`."""
    if pages is None:
        return [[] for _ in sequences]
    here: dict[bytes, Page] = {}  # what this call needs stays, however little room there is
    found = []
    for sequence in sequences:
        held: list[Page] = []
        for name, start in pages.names(sequence):
            page = here.get(name) or pages.get(name)
            if page is None:
                tokens = torch.tensor([sequence[start : start + pages.size]], device=model.device)
                positions = torch.arange(start, start + pages.size, device=model.device)[None]
                attends = NextPage(held, pages.size, model.dtype, model.device)
                _forward(model, tokens, positions, attends, 1)
                page = attends.page()
                pages.put(name, page)
            here[name] = page
            held.append(page)
        found.append(held)
    return found


def read_packed(
    model: Any, work: Sequence[tuple[Tokens, Sequence[Tokens]]], pages: Pages | None = None, layer: int | None = None
) -> list[list[Reading]]:
    """Continuations in one packed pass: every prefix once, what neighbouring prefixes share once.

    Args:
        layer: Whose mean states are wanted beside the logprobs.
    """
    prefixes = [prefix for prefix, _ in work]
    packed = Packed(prefixes, model.dtype, model.device, begin(model, prefixes, pages))
    sources: list[Tensor] = []
    spans: list[slice] = []
    for number, (_, continuations) in enumerate(work):
        last = torch.tensor(packed.ends[number : number + 1])
        for span in packed.branch(number, continuations):
            if len(span):
                sources.append(torch.cat([last, span[:-1]]))
                spans.append(slice(int(span[0]), int(span[-1]) + 1))
    if not sources:
        return [[Reading([]) for _ in continuations] for _, continuations in work]
    with caught(model, layer) as states:
        logits = _forward(model, packed.tokens, packed.positions, packed, torch.cat(sources).to(model.device))[0]
    targets = torch.tensor([token for _, conts in work for cont in conts for token in cont], device=model.device)
    flat = iter(_logprobs(logits, targets).tolist())
    means = _arrays([mean(states[0][0, span]) for span in spans] if states else [])
    return [
        [Reading([next(flat) for _ in cont], next(means, None) if cont else None) for cont in continuations]
        for _, continuations in work
    ]


def read_repeated(
    model: Any, prefix: Tokens, continuations: Sequence[Tokens], layer: int | None = None
) -> list[Reading]:
    """The same by transformers' own cache; padding comes after the tokens that count, where causality hides it."""
    filled = [continuation for continuation in continuations if continuation]
    if not filled:
        return [Reading([]) for _ in continuations]
    lengths = [len(continuation) for continuation in filled]
    ids = torch.zeros(len(filled), max(lengths), dtype=torch.int64)
    for number, continuation in enumerate(filled):
        ids[number, : lengths[number]] = torch.tensor(continuation)
    ids = ids.to(model.device)
    fed = ids[:, :-1] if layer is None else ids  # no logits of the last tokens are wanted, but their states may be
    if _continues(model):
        rows = RepeatedRows(model, prefix, len(filled))
        logits = rows.logits[:, None]
        with caught(model, layer) as states:
            if fed.shape[1]:
                out = model(input_ids=fed, past_key_values=rows.cache, use_cache=True)
                logits = torch.cat([logits, out.logits.float()], 1)
    else:
        before = torch.tensor([prefix], device=model.device).expand(len(filled), -1)
        with caught(model, layer) as states:
            logits = model(input_ids=torch.cat([before, fed], 1), use_cache=False).logits
        logits = logits[:, len(prefix) - 1 :].float()
    logits = logits[:, : ids.shape[1]]
    table = _logprobs(logits.flatten(0, 1), ids.flatten()).view(ids.shape).tolist()
    found = iter([row[:length] for row, length in zip(table, lengths, strict=True)])
    own = states[0][:, -ids.shape[1] :] if states else []
    means = _arrays([mean(row[:length]) for row, length in zip(own, lengths, strict=False)])
    return [Reading(next(found), next(means, None)) if cont else Reading([]) for cont in continuations]


def _arrays(means: Sequence[Tensor]) -> Iterator[NDArray[np.float32]]:
    """From the device in one go. Each has memory of its own, so that one that is kept does not keep all."""
    return iter([each.copy() for each in torch.stack(list(means)).cpu().numpy()] if means else [])


def _continues(model: Any) -> bool:
    """Whether several tokens may follow a filled cache at once: states of recurrent layers take one at a time."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or []
    return _accepts(model, "past_key_values") and all(
        kind.endswith("attention") and "linear" not in kind for kind in kinds
    )


def choose_path(model: Any) -> tuple[bool, str]:
    """Whether the branched way is right for this model, and why (not): by its config, then by trying.

    The trial compares both ways on a few made-up tokens, which catches architectures whose config hides what their
    attention does. Leaves the model set to the way that was chosen.
    """
    config = model.config.get_text_config()
    reason = _refusal(model, config)
    if reason is None:
        register()
        try:
            with torch.inference_mode():
                reason = _trial(model, int(config.vocab_size))
        except Exception as error:  # anything an unknown architecture does with our attention ends the trial
            reason = f"trial failed: {type(error).__name__}: {error}".splitlines()[0][:200]
    return (True, "full attention; agrees with the plain forward") if reason is None else (False, reason)


def _refusal(model: Any, config: Any) -> str | None:
    if not getattr(model, "_supports_attention_backend", False):
        return "the architecture takes no attention function from outside"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        return f"layers of kind {', '.join(sorted(kinds - {'full_attention'}))}"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return f"sliding window of {config.sliding_window} tokens"
    for name in ("attn_logit_softcapping", "attention_chunk_size", "alibi"):
        if getattr(config, name, None):
            return name
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "is_causal", True) is False:
        return "not a plain decoder"
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default") if isinstance(rope, dict) else "default"
    # These change all positions with the longest sequence at hand, so rows would depend on their neighbours.
    return f"rope of type {kind}" if kind in ("dynamic", "longrope") else None


def _trial(model: Any, vocab: int) -> str | None:
    generator = torch.Generator().manual_seed(0)
    ids: list[int] = torch.randint(min(vocab, 1000), (48,), generator=generator).tolist()
    plain = model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float()
    before = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    try:
        rows = BranchedRows(model, [ids[:24], ids[:40]], [1, 2])
        rows.step(torch.tensor([ids[24], ids[40], ids[40]], device=model.device))
        rows.keep(torch.tensor([0, 2]))
        rows.step(torch.tensor([ids[25], ids[41]], device=model.device))
        difference = float((rows.logits - plain[[25, 41]]).abs().max())
        allowed = (1e-3 if model.dtype == torch.float32 else 0.1) * max(1.0, float(plain.abs().max()))
        if not difference <= allowed:
            raise Unsupported(f"logits differ by {difference:.2g}")
    except BaseException:
        model.set_attn_implementation(before)
        raise
    return None


def _forward(model: Any, tokens: Tensor, positions: Tensor, attends: Attends, keep: Tensor | int) -> Tensor:
    out = model(input_ids=tokens, position_ids=positions, branches=attends, use_cache=False, logits_to_keep=keep)
    logits: Tensor = out.logits.float()
    return logits


def _logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    # A few rows at a time: the exponentials of all would be as large as the logits, in fresh memory.
    normalizers = torch.cat([rows.logsumexp(-1) for rows in logits.split(_ROWS)])
    return logits.gather(-1, targets[:, None])[:, 0] - normalizers


def _accepts(model: Any, name: str) -> bool:
    return name in inspect.signature(model.forward).parameters
