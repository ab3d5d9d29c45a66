"""What a small language model's likelihoods tell about a turn, from four teacher-forced passes.

    first   log p(turn | context, user header)
    second  the same with the last answer left empty
    third   log p(turn | context, assistant header)
    fourth  log p(turn | a bare user header)

first - second is the pointwise mutual information of turn and answer (PCMI: Paranjape & Manning 2021,
arXiv 2104.07831); a copy of the answer has the highest of all, so it is no sign of quality alone. first - third asks
who is speaking; first - fourth what the whole context gives. All in nats; turns are scored up to `MAX_TOKENS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from selfplay.core import Message, Prompt
from selfplay.engines.base import Engine, ScoreRequest
from selfplay.errors import SelfplayError

if TYPE_CHECKING:
    from selfplay.prompting.templates import ChatTemplate

SIGNALS = (
    "answer_pmi",
    "answer_pmi_sum",
    "answer_pmi_share",
    "role_ratio",
    "copy_gain",
    "fluency",
    "mean_logprob",
    "min_logprob",
)
DEFAULT_SCORER = "smollm2-135m"
MAX_TOKENS = 128
_SITES_PER_CALL = 16
_BARE_PER_REQUEST = 32

Tokens = tuple[int, ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Token ids of what stands before the turn in the first three passes; `assistant` is None without such a header."""

    answered: Tokens
    unanswered: Tokens
    assistant: Tokens | None


def likelihood_signals(
    contexts: Sequence[Sequence[Message] | None],
    turns: Sequence[str],
    ids: Sequence[Sequence[int] | None],
    scorer: Engine,
    template: ChatTemplate,
) -> dict[str, list[float | None]]:
    """The columns of `SIGNALS`, one value per row.

    Null for blank turns, for rows without messages, and where the scorer's template refuses the context.
    Rows with equal messages are one site: each distinct turn of it is scored once, in one request per pass. Sites are
    taken in the order of their prefixes, so that those of one conversation follow one another and an engine that
    keeps its prefix cache finds it.

    Args:
        contexts: Messages per row, ending with the assistant's; the same object or equal ones for one site.
        ids: Token ids of the turn where the scorer itself sampled it; None where the text is to be encoded.

    Raises:
        EngineError: The engine cannot score, or failed after its retries.
    """
    tokens = [_continuation(turn, own, template) for turn, own in zip(turns, ids, strict=True)]
    rows: dict[str, list[int]] = {}
    messages_of: dict[str, Sequence[Message]] = {}
    for row, context in enumerate(contexts):
        if context is not None and tokens[row]:
            key = repr([(m["role"], m.get("content")) for m in context])
            rows.setdefault(key, []).append(row)
            messages_of.setdefault(key, context)
    prefixes: dict[str, Prefixes] = {}
    for key, messages in messages_of.items():
        found = site_prefixes(messages, template)
        if found is not None:
            prefixes[key] = found
    order = sorted((p.answered, key) for key, p in prefixes.items())
    bare = _score_bare({tokens[row] for _, key in order for row in rows[key]}, scorer, template)
    columns: dict[str, list[float | None]] = {name: [None] * len(turns) for name in SIGNALS}
    for chunk in _chunks([key for _, key in order], _SITES_PER_CALL):
        sites = [(prefixes[key], sorted({tokens[row] for row in rows[key]})) for key in chunk]
        scored = _score_sites(sites, scorer)
        for key, passes in zip(chunk, scored, strict=True):
            for row in rows[key]:
                first, second, third = passes[tokens[row]]
                for name, value in arithmetic(first, second, third, bare[tokens[row]]).items():
                    columns[name][row] = value
    return columns


def arithmetic(
    first: Sequence[float], second: Sequence[float], third: Sequence[float] | None, fourth: Sequence[float]
) -> Mapping[str, float | None]:
    """The signals of one turn from its token logprobs (nats) in the four passes, at least one token each."""
    one, two, four = (np.asarray(values, dtype=np.float64) for values in (first, second, fourth))
    pmi = one - two
    return {
        "answer_pmi": float(pmi.mean()),
        "answer_pmi_sum": float(pmi.sum()),
        "answer_pmi_share": float((pmi > 1).mean()),
        "role_ratio": None if third is None else float((one - np.asarray(third, dtype=np.float64)).mean()),
        "copy_gain": float((one - four).mean()),
        "fluency": float(four.mean()),
        "mean_logprob": float(one.mean()),
        "min_logprob": float(one.min()),
    }


def site_prefixes(messages: Sequence[Message], template: ChatTemplate) -> Prefixes | None:
    """The three prefixes of a site, or None where the template refuses these messages.

    A context that does not fit the scorer loses its oldest messages (the system message stays as long as it can);
    a single answer that does not fit alone loses its first tokens.
    """
    limit = (template.tokenizer.context_length or 1 << 30) - MAX_TOKENS
    messages = _fit(messages, template, limit)
    while messages:
        try:
            answered = template.user_prompt(messages)
            unanswered = template.user_prompt(template.empty_answer(messages)[0])
            assistant = template.assistant_prompt(messages)
        except SelfplayError:
            # Some templates insist on a user message first, which a shortened context may lack.
            return None
        if len(answered.token_ids) <= limit or len(messages) <= 1:
            break
        messages = _without_oldest(messages)

    def cut(prompt: Prompt) -> Tokens:
        return tuple(prompt.token_ids)[-limit:]

    return Prefixes(cut(answered), cut(unanswered), cut(assistant) if assistant else None)


def _fit(messages: Sequence[Message], template: ChatTemplate, limit: int) -> list[Message]:
    """Drops the oldest messages until the rest is about as long as the limit; exact only after rendering."""
    kept = list(messages)
    if sum(len(str(m.get("content") or "").encode()) + 64 for m in kept) < limit:
        return kept  # no text has more tokens than bytes
    sizes = [len(template.tokenizer.encode(str(m.get("content") or ""), special=False)) + 8 for m in kept]
    total = sum(sizes)
    while total > limit and len(kept) > 1:
        place = _oldest(kept)
        total -= sizes.pop(place)
        del kept[place]
    return kept


def _oldest(messages: Sequence[Message]) -> int:
    return 1 if messages[0]["role"] == "system" and len(messages) > 2 else 0


def _without_oldest(messages: list[Message]) -> list[Message]:
    place = _oldest(messages)
    return messages[:place] + messages[place + 1 :]


def _continuation(turn: str, own: Sequence[int] | None, template: ChatTemplate) -> Tokens:
    """Sampled ids as they are; text from outside by itself, control tokens taken as plain characters."""
    if not turn.strip():
        return ()
    ids = own if own is not None else template.tokenizer.encode(turn, special=False)
    return tuple(ids)[:MAX_TOKENS]


def _score_bare(turns: set[Tokens], scorer: Engine, template: ChatTemplate) -> dict[Tokens, list[float]]:
    header = tuple(template.bare_user_prompt().token_ids)
    groups = _chunks(sorted(turns, key=lambda ids: (len(ids), ids)), _BARE_PER_REQUEST)
    found: dict[Tokens, list[float]] = {}
    for chunk in _chunks(groups, _SITES_PER_CALL):
        requests = [ScoreRequest(header, tuple(group)) for group in chunk]
        for group, scores in zip(chunk, scorer.score(requests), strict=True):
            found.update(zip(group, scores, strict=True))
    return found


def _score_sites(sites: Sequence[tuple[Prefixes, list[Tokens]]], scorer: Engine) -> Iterator[dict[Tokens, Any]]:
    """Per site: turn → its token logprobs in the first, second and third pass (None without an assistant header)."""
    requests: list[ScoreRequest] = []
    for prefixes, turns in sites:
        for prefix in (prefixes.answered, prefixes.assistant, prefixes.unanswered):
            if prefix is not None:
                requests.append(ScoreRequest(prefix, tuple(turns)))
    scores = iter(scorer.score(requests))
    for prefixes, turns in sites:
        first = next(scores)
        third: Sequence[list[float] | None] = next(scores) if prefixes.assistant is not None else [None] * len(turns)
        second = next(scores)
        yield dict(zip(turns, zip(first, second, third, strict=True), strict=True))


def _chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
