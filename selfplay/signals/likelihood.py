"""What a small language model's likelihoods tell about a turn, from four teacher-forced passes.

    first   log p(turn | context, user header)
    second  the same with the last answer left empty
    third   log p(turn | context, assistant header)
    fourth  log p(turn | a bare user header)

first - second is the pointwise mutual information of turn and answer (PCMI: Paranjape & Manning 2021,
arXiv 2104.07831); a copy of the answer has the highest of all, so it is no sign of quality alone. first - third asks
who is speaking; first - fourth what the whole context gives. All in nats; turns are scored up to `MAX_TOKENS`.

Cost: a forward pass over every distinct turn of a site for each of the four, and over the context once. Where the
scorer itself sampled the turn its logprobs are the first pass.

A fifth pass is only for a control that nobody needs by default (`CONTROL`): the turn under the answer of another
site. A turn that gains as much from this answer as from any is not a reaction to it; what both have in common, such
as that an answer stands there at all, first - second counts and this does not.

The tier `state` is the first pass alone, and of it what a probe reads (`STATE`): the mean over the turn's tokens of the
scorer's hidden state after one layer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from selfplay.core import Message, Prompt
from selfplay.engines.base import Engine, Reader, Reading, ScoreRequest
from selfplay.errors import SelfplayError

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
CONTROL = ("answer_pmi_swapped",)
STATE = "turn_state"
DEFAULT_SCORER = "smollm2-135m"
MAX_TOKENS = 128
_SITES_PER_CALL = 16
_BARE_PER_REQUEST = 32

Tokens = tuple[int, ...]
T = TypeVar("T")
Readings = dict[Tokens, Reading]


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Token ids of what stands before the turn in the first three passes; `assistant` is None without such a header.

    Attributes:
        whole: Nothing of the context was left out to fit the scorer.
    """

    answered: Tokens
    unanswered: Tokens
    assistant: Tokens | None
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Sites:
    """Rows grouped by their context, in the order in which they are scored.

    Attributes:
        keys: One per site; those of one conversation follow one another.
        rows: Row numbers per site.
        tokens: Of every row's turn; empty for a blank one.
    """

    keys: list[str]
    rows: dict[str, list[int]]
    messages: dict[str, Sequence[Message]]
    prefixes: dict[str, Prefixes]
    tokens: list[Tokens]

    def turns(self, key: str) -> list[Tokens]:
        """The distinct turns of a site."""
        return sorted({self.tokens[row] for row in self.rows[key]})


def likelihood_signals(
    contexts: Sequence[Sequence[Message] | None],
    turns: Sequence[str],
    ids: Sequence[Sequence[int] | None],
    scorer: Engine,
    template: ChatTemplate,
    sampled: Sequence[Reading | None] | None = None,
    layer: int | None = None,
) -> dict[str, list[Any]]:
    """The columns of `SIGNALS`, one value per row, and with `layer` that of `STATE`, float32 [hidden] each.

    Null for blank turns, for rows without messages, and where the scorer's template refuses the context.
    Rows with equal messages are one site: each distinct turn of it is scored once, in one request per pass. Sites are
    taken in the order of their prefixes, so that those of one conversation follow one another and an engine that
    keeps its prefix cache finds it.

    Args:
        contexts: Messages per row, ending with the assistant's; the same object or equal ones for one site.
        ids: Token ids of the turn where the scorer itself sampled it; None where the text is to be encoded.
        sampled: Logprobs (nats, temperature 1) of `ids` under the scorer after the context at the user header, where
            they are known: the first pass, which is then computed only for a state that is wanted and not known.
        layer: Of the scorer's layers (counted from 1), whose state is wanted. An engine that is no `base.Reader` gives
            null.

    Raises:
        EngineError: The engine cannot score, failed after its retries, or has no such layer.
    """
    sites = _sites(contexts, turns, ids, template)
    names = (*SIGNALS, STATE) if layer is not None else SIGNALS
    columns: dict[str, list[Any]] = {name: [None] * len(turns) for name in names}
    bare = _score_bare({turn for key in sites.keys for turn in sites.turns(key)}, scorer, template)
    for chunk in _chunks(sites.keys, _SITES_PER_CALL):
        known = [_known(sites, key, ids, sampled) for key in chunk]
        asked = [_requests(sites, key, _enough(own, scorer, layer)) for key, own in zip(chunk, known, strict=True)]
        for key, own, (first, second, third) in zip(chunk, known, _score(asked, scorer, layer), strict=True):
            for row in sites.rows[key]:
                turn = sites.tokens[row]
                one = own[turn] if turn in own else first[turn]
                other = third[turn].logprobs if turn in third else None
                found = arithmetic(one.logprobs, second[turn].logprobs, other, bare[turn])
                for name, value in found.items():
                    columns[name][row] = value
                if layer is not None:
                    columns[STATE][row] = first.get(turn, one).state
    return columns


def turn_states(
    contexts: Sequence[Sequence[Message] | None],
    turns: Sequence[str],
    ids: Sequence[Sequence[int] | None],
    scorer: Engine,
    template: ChatTemplate,
    sampled: Sequence[Reading | None] | None,
    layer: int,
) -> dict[str, list[Any]]:
    """The column of `STATE` alone, by the first pass only; arguments, nulls and errors as in `likelihood_signals`."""
    column: list[NDArray[np.float32] | None] = [None] * len(turns)
    if not isinstance(scorer, Reader):
        return {STATE: column}
    sites = _sites(contexts, turns, ids, template)
    for chunk in _chunks(sites.keys, _SITES_PER_CALL):
        known = [_enough(_known(sites, key, ids, sampled), scorer, layer) for key in chunk]
        asked = [_requests(sites, key, own)[:1] for key, own in zip(chunk, known, strict=True)]
        for key, own, (first,) in zip(chunk, known, _score(asked, scorer, layer), strict=True):
            for row in sites.rows[key]:
                column[row] = (own | first)[sites.tokens[row]].state
    return {STATE: column}


def control_signals(
    contexts: Sequence[Sequence[Message] | None],
    turns: Sequence[str],
    ids: Sequence[Sequence[int] | None],
    scorer: Engine,
    template: ChatTemplate,
    sampled: Sequence[Reading | None] | None = None,
) -> dict[str, list[Any]]:
    """The columns of `CONTROL`; arguments, nulls and errors as in `likelihood_signals`.

    `answer_pmi_swapped` is the mean over the turn's tokens of log p(turn | context) - log p(turn | the same context
    with another site's answer in place of this one's). The other site is the next one of these rows, in the order of
    the rendered contexts and around its end, that has another answer and another first message: a neighbour of
    the same conversation would be no stranger. Null where there is none.
    """
    sites = _sites(contexts, turns, ids, template)
    column: list[float | None] = [None] * len(turns)
    swapped = {key: _swapped(sites, place, template) for place, key in enumerate(sites.keys)}
    for chunk in _chunks([key for key in sites.keys if swapped[key] is not None], _SITES_PER_CALL):
        known = [_known(sites, key, ids, sampled) for key in chunk]
        asked = [
            [_requests(sites, key, own)[0], (swapped[key], sites.turns(key))]
            for key, own in zip(chunk, known, strict=True)
        ]
        for key, own, (first, other) in zip(chunk, known, _score(asked, scorer), strict=True):
            for row in sites.rows[key]:
                turn = sites.tokens[row]
                one = own[turn] if turn in own else first[turn]
                column[row] = float(np.subtract(one.logprobs, other[turn].logprobs).mean())
    return {"answer_pmi_swapped": column}


def _sites(
    contexts: Sequence[Sequence[Message] | None],
    turns: Sequence[str],
    ids: Sequence[Sequence[int] | None],
    template: ChatTemplate,
) -> Sites:
    tokens = [_continuation(turn, own, template) for turn, own in zip(turns, ids, strict=True)]
    rows: dict[str, list[int]] = {}
    messages: dict[str, Sequence[Message]] = {}
    for row, context in enumerate(contexts):
        if context is not None and tokens[row]:
            key = repr([(m["role"], m.get("content")) for m in context])
            rows.setdefault(key, []).append(row)
            messages.setdefault(key, context)
    prefixes = {key: found for key, context in messages.items() if (found := site_prefixes(context, template))}
    return Sites(sorted(prefixes, key=lambda key: (prefixes[key].answered, key)), rows, messages, prefixes, tokens)


def _known(
    sites: Sites, key: str, ids: Sequence[Sequence[int] | None], sampled: Sequence[Reading | None] | None
) -> Readings:
    """Turns of a site whose first pass the sampler did; none where it saw a longer context than the scorer can."""
    if sampled is None or not sites.prefixes[key].whole:
        return {}
    found: Readings = {}
    for row in sites.rows[key]:
        own, reading = ids[row], sampled[row]
        if own is not None and reading is not None and len(own) == len(reading.logprobs):
            found.setdefault(sites.tokens[row], Reading(reading.logprobs[:MAX_TOKENS], reading.state))
    return found


def _enough(known: Readings, scorer: Engine, layer: int | None) -> Readings:
    """Those that need no first pass: with a state, where one is wanted and can be had."""
    if layer is None or not isinstance(scorer, Reader):
        return known
    return {turn: reading for turn, reading in known.items() if reading.state is not None}


def _requests(sites: Sites, key: str, known: Collection[Tokens]) -> list[tuple[Tokens | None, list[Tokens]]]:
    """Prefix and turns of the first three passes."""
    prefixes, turns = sites.prefixes[key], sites.turns(key)
    return [
        (prefixes.answered, [turn for turn in turns if turn not in known]),
        (prefixes.unanswered, turns),
        (prefixes.assistant, turns),
    ]


def _swapped(sites: Sites, place: int, template: ChatTemplate) -> Tokens | None:
    """Prefix of the first pass with the answer of another site."""
    mine = sites.messages[sites.keys[place]]
    for key in (*sites.keys[place + 1 :], *sites.keys[:place]):
        other = sites.messages[key]
        if other[0] != mine[0] and other[-1].get("content") != mine[-1].get("content"):
            found = site_prefixes([*mine[:-1], {**mine[-1], "content": other[-1].get("content")}], template)
            return found.answered if found else None
    return None


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
    complete = messages
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

    whole = len(messages) == len(complete) and len(answered.token_ids) <= limit
    return Prefixes(cut(answered), cut(unanswered), cut(assistant) if assistant else None, whole)


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


def _score(
    sites: Sequence[Sequence[tuple[Tokens | None, list[Tokens]]]], scorer: Engine, layer: int | None = None
) -> Iterator[list[Readings]]:
    """Per site and pass: turn → what the scorer read; nothing for a pass without a prefix."""
    asked = [(prefix, turns) for passes in sites for prefix, turns in passes if prefix is not None and turns]
    requests = [ScoreRequest(prefix, tuple(turns)) for prefix, turns in asked]
    # The passes share what their prefixes share, so they go together, though the state of the first alone is wanted.
    if layer is not None and isinstance(scorer, Reader):
        readings = iter(scorer.read(requests, layer))
    else:
        readings = iter([[Reading(each) for each in found] for found in scorer.score(requests)])
    for passes in sites:
        yield [
            dict(zip(turns, next(readings), strict=True)) if prefix is not None and turns else {}
            for prefix, turns in passes
        ]


def _chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
