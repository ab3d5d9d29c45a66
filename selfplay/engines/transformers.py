"""The in-process engine: a transformers model, each prompt computed once, all its draws branching off the cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from selfplay.core import Sampling
from selfplay.engines.base import CacheUse, Reading, SampleRequest, SampleResult, ScoreRequest
from selfplay.errors import EngineError
from selfplay.terminal import one_line

NEEDS = "the transformers engine needs torch and transformers: pip install 'selfplay-turns[local]'"


class TransformersEngine:
    """Samples and scores with `AutoModelForCausalLM`; keeps `base.Engine` and `base.Reader`.

    Which requests are computed together depends only on the requests of one group and on these settings, never on
    time or free memory, so a run that hands over the same groups repeats itself.

    Args:
        model: Embedded name, local folder or Hugging Face id.
        device: `cpu`, `cuda`, `cuda:1`, `mps`; by default CUDA where there is one.
        dtype: `float32`, `bfloat16`, `float16`; `auto` is float32 on the CPU and bfloat16 on CUDA.
        share_cpu: Take half of the threads that torch would, since another model works in this process.
        threads: CPU threads of torch; its own default if None. Where other work keeps the cores busy, 1 is far
            faster than more, since threads wait for each other. Another number may round differently, so a run that
            is to be repeated keeps it.
        sites_per_batch: Most sites decoded together.
        group: Consecutive requests among which batches are formed; by default two batches' worth.
        kv_bytes: Bytes of keys and values a batch may hold; long prompts make smaller batches.
        score_tokens: Most tokens scored in one pass, prefixes included.
        page_bytes: Keys and values of prompts' beginnings kept for later calls, in bytes; 0 keeps none. What was
            sampled is then scored, and sampled again, without its prompt being computed anew.
        page_tokens: Tokens computed as one page; by default 128 on the CPU and 512 elsewhere. Another number may
            round differently.
        stop_at_eos: Also end turns at the model's own end tokens, as inference servers do.
        state_layer: Layer (counted from 1) whose states are gathered while sampling, into `Candidate.state`.
        state_tokens: Tokens of a turn that count for it.

    Raises:
        EngineError: torch or transformers are missing, the model cannot be loaded, or has no such layer.
    """

    name = "transformers"
    primed = False
    seeded = True

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        threads: int | None = None,
        share_cpu: bool = False,
        sites_per_batch: int = 4,
        group: int | None = None,
        kv_bytes: int = 2 << 30,
        score_tokens: int = 4096,
        page_bytes: int = 1 << 30,
        page_tokens: int | None = None,
        stop_at_eos: bool = True,
        state_layer: int | None = None,
        state_tokens: int = 128,
    ) -> None:
        try:
            import torch
            import transformers
        except ImportError:
            raise EngineError(NEEDS) from None
        from selfplay.engines.forward import choose_path
        from selfplay.engines.states import check_layer, layers_of
        from selfplay.models import resolve
        from selfplay.prompting.tokenizer import load_tokenizer

        if threads is None and share_cpu and _device(device) == "cpu":
            threads = max(1, torch.get_num_threads() // 2)
        if threads is not None:
            torch.set_num_threads(threads)
        self._torch = torch
        self._transformers_version = transformers.__version__
        self._id, self._revision = model, revision
        self._tokenizer = load_tokenizer(model, revision)
        self._model: Any = _load(resolve(model), revision, _device(device), dtype)
        self.branched, self._why = choose_path(self._model)
        self.layers = len(layers_of(self._model))
        if state_layer is not None:
            check_layer(self._model, state_layer, model)
        self._state_layer, self._state_tokens = state_layer, state_tokens
        config = self._model.config.get_text_config()
        self._vocab = int(self._model.get_input_embeddings().weight.shape[0])
        self.context_length = self._tokenizer.context_length
        self._eos = tuple(self._tokenizer.eos_token_ids) if stop_at_eos else ()
        self._sites_per_batch = max(1, sites_per_batch)
        self.group = group or 2 * self._sites_per_batch
        self._kv_bytes, self._score_tokens = kv_bytes, score_tokens
        from selfplay.engines.pages import Pages

        # Even without room pages are computed as such, so that room changes no number.
        self._pages = Pages(page_tokens or (128 if self._model.device.type == "cpu" else 512), page_bytes)
        self.prompted = CacheUse()
        self._bytes_per_token = _bytes_per_token(config, self._model.dtype.itemsize)

    def describe(self) -> dict[str, Any]:
        """Model, versions, device and settings, and which way the cache is branched (`cache`, `cache_reason`)."""
        import numpy

        return {
            "engine": self.name,
            "model": self._id,
            "revision": self._revision,
            "transformers": self._transformers_version,
            "torch": self._torch.__version__,
            "numpy": numpy.__version__,
            "device": str(self._model.device),
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "threads": self._torch.get_num_threads(),
            "cache": "branched" if self.branched else "repeated",
            "cache_reason": self._why,
            "sites_per_batch": self._sites_per_batch,
            "group": self.group,
            "kv_bytes": self._kv_bytes,
            "page_tokens": self._pages.size,
        }

    def sample(self, requests: Iterable[SampleRequest], sampling: Sampling) -> Iterator[SampleResult]:
        """Yields one result per request, batch by batch; see `base.Engine.sample`."""
        waiting = iter(requests)
        while chunk := list(islice(waiting, self.group)):
            fit = []
            for request in chunk:
                problem = self._problem(request)
                if problem:
                    yield SampleResult(request.key, error=problem)
                elif request.draws:
                    fit.append(request)
                else:
                    yield SampleResult(request.key)
            for batch in self._batches(fit, sampling):
                yield from self._sample_batch(batch, sampling)

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[list[float]]]:
        """Logprobs of continuations; see `base.Engine.score`. Prefixes that begin alike are computed once."""
        return [[reading.logprobs for reading in found] for found in self._read(requests, None)]

    def read(self, requests: Sequence[ScoreRequest], layer: int) -> list[list[Reading]]:
        """The same with the mean state after `layer` of each continuation; see `base.Reader.read`."""
        from selfplay.engines.states import check_layer

        check_layer(self._model, layer, self._id)
        return self._read(requests, layer)

    def _read(self, requests: Sequence[ScoreRequest], layer: int | None) -> list[list[Reading]]:
        from selfplay.engines.forward import read_packed, read_repeated

        for request in requests:
            for ids in (request.prefix, *request.continuations):
                if ids and not 0 <= min(ids) <= max(ids) < self._vocab:
                    raise EngineError(f"cannot score: a token id is outside the vocabulary of {self._id}")
            if not request.prefix:
                raise EngineError("cannot score after an empty prefix: its first token has no logprob")
        results: list[list[Reading]] = [[] for _ in requests]
        try:
            with self._torch.inference_mode():
                if not self.branched:
                    return [read_repeated(self._model, r.prefix, r.continuations, layer) for r in requests]
                for batch in self._score_batches(requests):
                    work = [(requests[number].prefix, continuations) for number, continuations in batch]
                    readings = read_packed(self._model, work, self._pages, layer)
                    for (number, _), found in zip(batch, readings, strict=True):
                        results[number] += found
        except (RuntimeError, MemoryError) as error:
            raise EngineError(f"scoring failed: {_line(error)}") from error
        return results

    def flush_cache(self) -> None:
        """Forgets the kept pages, for measurements."""
        self._pages.clear()

    def close(self) -> None:
        """Frees the model. Safe to call twice."""
        self._pages.clear()
        self._model = None

    def _problem(self, request: SampleRequest) -> str | None:
        ids = request.prompt.token_ids
        if not ids:
            return "the prompt has no tokens"
        if not 0 <= min(ids) <= max(ids) < self._vocab:
            return f"the prompt has a token id outside the vocabulary of {self._id}"
        if self.context_length is not None and len(ids) >= self.context_length:
            return f"the prompt has {len(ids)} tokens, the context of {self._id} only {self.context_length}"
        return None

    def _limit(self, request: SampleRequest, sampling: Sampling) -> int:
        if self.context_length is None:
            return sampling.max_tokens
        return min(sampling.max_tokens, self.context_length - len(request.prompt.token_ids))

    def _batches(self, requests: Sequence[SampleRequest], sampling: Sampling) -> Iterator[list[SampleRequest]]:
        """Cuts a group into batches within the budget, prompts of like beginning or length together."""
        batch: list[SampleRequest] = []
        longest = rows = 0
        for request in _by_likeness(requests):
            length = len(request.prompt.token_ids)
            own = len(request.draws) * self._limit(request, sampling)
            held = (len(batch) + 1) * max(longest, length) + rows + own
            full = len(batch) >= (self._sites_per_batch if self.branched else 1)
            if batch and (full or held * self._bytes_per_token > self._kv_bytes):
                yield batch
                batch, longest, rows = [], 0, 0
            batch.append(request)
            longest, rows = max(longest, length), rows + own
        if batch:
            yield batch

    def _sample_batch(self, batch: Sequence[SampleRequest], sampling: Sampling) -> Iterator[SampleResult]:
        """A batch that fails is tried again site by site; a site that fails alone yields its error."""
        try:
            results = self._decode(batch, sampling)
        except (RuntimeError, MemoryError, IndexError) as error:
            if self._model.device.type == "cuda":
                self._torch.cuda.empty_cache()
            if len(batch) == 1:
                yield SampleResult(batch[0].key, error=f"sampling failed: {_line(error)}")
                return
            results = [result for request in batch for result in self._sample_batch([request], sampling)]
        yield from results

    def _decode(self, batch: Sequence[SampleRequest], sampling: Sampling) -> list[SampleResult]:
        from selfplay.engines.decoding import decode_batch
        from selfplay.engines.forward import BranchedRows, RepeatedRows, Rows

        prompts = [request.prompt.token_ids for request in batch]
        counts = [len(request.draws) for request in batch]
        limits = [self._limit(request, sampling) for request in batch]
        with self._torch.inference_mode():
            rows: Rows
            if self.branched:
                held = [self._pages.held(prompt) for prompt in prompts]
                rows = BranchedRows(self._model, prompts, counts, self._pages, self._state_layer)
                self.prompted.cached += sum(map(max, held, rows.cached))
            else:
                rows = RepeatedRows(self._model, prompts[0], counts[0], self._state_layer)
            self.prompted.tokens += sum(map(len, prompts))
            return decode_batch(rows, batch, sampling, limits, self._eos, self._tokenizer, self._state_tokens)

    def _score_batches(
        self, requests: Sequence[ScoreRequest]
    ) -> Iterator[list[tuple[int, tuple[tuple[int, ...], ...]]]]:
        """Cuts requests, like prefixes next to each other, under the token budget; a huge one is split in itself."""
        from selfplay.engines.branching import common_prefix

        batch: list[tuple[int, tuple[tuple[int, ...], ...]]] = []
        used = 0
        before: tuple[int, ...] = ()
        size = self._pages.size
        # Half the budget, and no more than half a gigabyte of logits.
        most = max(1, min(self._score_tokens // 2, (512 << 20) // (4 * self._vocab)))
        held = 0
        for number in sorted(range(len(requests)), key=lambda i: requests[i].prefix):
            prefix = requests[number].prefix
            for part in _parts(requests[number].continuations, most):
                tokens = sum(map(len, part))
                new = len(prefix) - (common_prefix(before, prefix) if batch else 0)
                new = min(new, len(prefix) - (len(prefix) - 1) // size * size)  # the rest is in pages
                if batch and (used + new + tokens > self._score_tokens or held + tokens > most):
                    yield batch
                    batch, used, held, new = [], 0, 0, (len(prefix) - 1) % size + 1
                batch.append((number, part))
                held += tokens
                used, before = used + new + tokens, prefix
        if batch:
            yield batch


def _parts(continuations: tuple[tuple[int, ...], ...], most: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    part: list[tuple[int, ...]] = []
    used = 0
    for continuation in continuations:
        if part and used + len(continuation) > most:
            yield tuple(part)
            part, used = [], 0
        part.append(continuation)
        used += len(continuation)
    yield tuple(part)


def _by_likeness(requests: Sequence[SampleRequest]) -> list[SampleRequest]:
    """Sites of one conversation next to each other (their prompts share most), such clusters sorted by length."""
    from selfplay.engines.branching import common_prefix

    clusters: list[list[SampleRequest]] = []
    for request in sorted(requests, key=lambda r: r.prompt.token_ids):
        ids = request.prompt.token_ids
        last = clusters[-1][-1].prompt.token_ids if clusters else ()
        if clusters and 2 * common_prefix(last, ids) >= min(len(last), len(ids)):
            clusters[-1].append(request)
        else:
            clusters.append([request])
    clusters.sort(key=lambda cluster: max(len(request.prompt.token_ids) for request in cluster))
    return [request for cluster in clusters for request in cluster]


def _load(place: str, revision: str | None, device: str, dtype: str) -> Any:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    from selfplay.models import quiet_loading

    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    try:
        with quiet_loading():
            model = AutoModelForCausalLM.from_pretrained(place, revision=revision, dtype=getattr(torch, dtype))
        return model.to(device).eval()
    except (OSError, ValueError, AttributeError, RuntimeError, ImportError, KeyError, SafetensorError) as error:
        raise EngineError(
            f"cannot load {place}: {_line(error)}; `selfplay models get smollm2-135m` gets the embedded model"
        ) from error


def _device(device: str | None) -> str:
    import torch

    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def _bytes_per_token(config: Any, itemsize: int) -> int:
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * config.num_hidden_layers * kv_heads * dim * itemsize)


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {one_line(lines[0])}"
