"""The tables of a run as polars frames: sites (each context once) and turns (one row per candidate)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from selfplay.core import Candidate, Message, Site
from selfplay.engines.base import SampleRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SITES = pl.Schema(
    {
        "site_id": pl.String(),
        "ordinal": pl.Int64(),
        "conversation_id": pl.String(),
        "messages": pl.String(),  # JSON, since tool calls and extra keys have no one schema
        "extra": pl.String(),  # JSON of the columns we do not know
        "next_user": pl.String(),  # what the user really said next, where the conversation goes on
        "file": pl.String(),
        "line": pl.Int64(),
        "prompt_tokens": pl.Int64(),
    }
)
TURNS = pl.Schema(
    {
        "site_id": pl.String(),
        "ordinal": pl.Int64(),
        "conversation_id": pl.String(),
        "model": pl.String(),
        "primed": pl.Boolean(),
        "temperature": pl.Float64(),
        "sample": pl.Int64(),
        "seed": pl.Int64(),  # null where the engine could not use it
        "turn": pl.String(),
        "token_ids": pl.List(pl.Int32()),
        "token_logprobs": pl.List(pl.Float32()),
        "finish_reason": pl.String(),
        "completion_tokens": pl.Int64(),
        "cached_tokens": pl.Int64(),
    }
)
SAMPLED_STATE = "sampled_state"
"""Beside these, only where an engine gathered states (`Candidate.state`), and only until the turns are judged: they are
long."""
CONTEXTS = pl.Schema(
    {
        "site_id": pl.String(),
        "messages": pl.String(),
        "query": pl.String(),
        "answer": pl.String(),
        "history": pl.List(pl.String()),
    }
)
CONTEXT = ("query", "answer", "history", "messages")


def sites_table(planned: Iterable[tuple[Site, SampleRequest]]) -> pl.DataFrame:
    """One row per site, in order."""
    rows = [
        {
            "site_id": site.site_id,
            "ordinal": site.ordinal,
            "conversation_id": site.conversation.id,
            "messages": json.dumps(list(site.messages), ensure_ascii=False),
            "extra": json.dumps(dict(site.conversation.extra), ensure_ascii=False, default=str),
            "next_user": next_user(site),
            "file": site.conversation.origin.file,
            "line": site.conversation.origin.line,
            "prompt_tokens": len(request.prompt.token_ids),
        }
        for site, request in planned
    ]
    return pl.DataFrame(rows, schema=SITES).sort("ordinal")


def next_user(site: Site) -> str | None:
    """The real user turn at this site, if the conversation has one."""
    rest = site.conversation.messages[site.end :]
    return str(rest[0]["content"]) if rest and rest[0]["role"] == "user" else None


def turns_table(sampled: Iterable[tuple[Site, Sequence[Candidate]]], model: str, primed: bool) -> pl.DataFrame:
    """One row per candidate, ordered by site, temperature and sample; with `SAMPLED_STATE` where any has a state."""
    rows: list[dict[str, Any]] = []
    states: list[NDArray[np.float32] | None] = []
    for site, candidates in sampled:
        rows += [_turn_row(site, candidate, model, primed) for candidate in candidates]
        states += [candidate.state for candidate in candidates]
    table = pl.DataFrame(rows, schema=TURNS)
    if any(state is not None for state in states):
        table = table.with_columns(states_column(SAMPLED_STATE, states))
    return table.sort("ordinal", "temperature", "sample")


def states_column(name: str, states: Sequence[NDArray[np.float32] | None]) -> pl.Series:
    """Lists of float32, null where there is no state."""
    # As series, since polars does not take arrays with nulls between them.
    lists = [None if state is None else pl.Series(state, dtype=pl.Float32) for state in states]
    return pl.Series(name, lists, dtype=pl.List(pl.Float32))


def _turn_row(site: Site, candidate: Candidate, model: str, primed: bool) -> dict[str, Any]:
    return {
        "site_id": site.site_id,
        "ordinal": site.ordinal,
        "conversation_id": site.conversation.id,
        "model": model,
        "primed": primed,
        "temperature": candidate.draw.temperature,
        "sample": candidate.draw.sample,
        "seed": candidate.draw.seed if candidate.seeded else None,
        "turn": candidate.turn.encode("utf-8", "replace").decode(),  # a server's JSON may hold half a surrogate pair
        "token_ids": candidate.token_ids,
        "token_logprobs": candidate.token_logprobs,
        "finish_reason": candidate.finish_reason,
        "completion_tokens": candidate.completion_tokens,
        "cached_tokens": candidate.cached_tokens,
    }


def context_columns(messages: Sequence[Message]) -> dict[str, Any]:
    """What filters and rerank need of a context: `query`, `answer`, `history`.

    `messages` ends with the assistant's. `query` is None where the assistant spoke first.
    """
    history = [str(message["content"]) for message in messages if message["role"] == "user"]
    return {
        "query": history[-1] if history else None,
        "answer": str(messages[-1]["content"] or ""),
        "history": history,
    }


def with_context(turns: pl.DataFrame, sites: pl.DataFrame) -> pl.DataFrame:
    """Turns with the columns `CONTEXT` of their sites."""
    contexts = pl.DataFrame(
        [
            {"site_id": site_id, "messages": messages} | context_columns(json.loads(messages))
            for site_id, messages in sites.select("site_id", "messages").iter_rows()
        ],
        schema=CONTEXTS,
    )
    return turns.join(contexts, on="site_id", how="left", maintain_order="left")
