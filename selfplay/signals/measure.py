"""Adds the signal columns that filters and rerank read, for as many tiers as this install has.

Tiers: `text` needs nothing and is measured by filters and rerank themselves; `embedding` needs sentence-transformers;
`state` needs an engine that tells hidden states and `likelihood` one that scores; `cross` needs a cross-encoder, of
which none is shipped. The shipped rules and
weights were learned with SmolLM2-135M as scorer and MiniLM as embedder, whatever model wrote the turns:
`signal_versions` says which ones measured, to be checked against what rules and weights record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from selfplay.core import Message
from selfplay.engines.base import Engine, Reading
from selfplay.errors import SelfplayError
from selfplay.signals import cross, embedding, likelihood
from selfplay.signals.cross import PairScorer
from selfplay.signals.embedding import Embedder
from selfplay.tables import SAMPLED_STATE, states_column

EMBEDDING_SIGNALS = embedding.SIGNALS
LIKELIHOOD_SIGNALS = likelihood.SIGNALS
STATE = likelihood.STATE
SIGNALS: Mapping[str, tuple[str, ...]] = {
    "embedding": EMBEDDING_SIGNALS,
    "state": (STATE,),
    "likelihood": LIKELIHOOD_SIGNALS,
    "cross": cross.SIGNALS,
}
NUMBERS = tuple(name for names in SIGNALS.values() for name in names if name != STATE)
"""Those that are one number for each turn, as rows of files can hold them."""
SCORED = ("state", "likelihood")
"""The tiers that the scorer measures."""
CONTROL_SIGNALS = likelihood.CONTROL
"""Of the tier `control`: measured only where it is asked for, read by no shipped rule or weight."""
PARTS: Mapping[str, str] = {
    "embedding": "embedder",
    **dict.fromkeys(SCORED, "scorer"),
    "cross": "cross_encoder",
}
"""What `signal_versions` calls the model that measures a tier."""
_NEEDS = {
    "embedding": ("torch", "sentence_transformers"),
    **dict.fromkeys(SCORED, ("torch", "transformers")),
    "cross": ("torch", "sentence_transformers"),
}


def available_tiers() -> tuple[frozenset[str], dict[str, str]]:
    """The tiers this install can measure by itself, and for each of the others the reason why not. Loads nothing."""
    missing: dict[str, str] = {}
    for tier, modules in _NEEDS.items():
        absent = [name for name in modules if find_spec(name) is None]
        if absent:
            missing[tier] = f"{', '.join(absent)} not installed (pip install 'selfplay-turns[local]')"
    return frozenset({"text", *(_NEEDS.keys() - missing.keys())}), missing


def measure(
    table: pl.DataFrame,
    tiers: Collection[str],
    *,
    embedder: Embedder | None = None,
    scorer: Engine | None = None,
    template: Any = None,
    own_tokens: bool = False,
    own_logprobs: bool = False,
    skip_cut: bool = False,
    cross_encoder: PairScorer | None = None,
    layer: int | None = None,
) -> pl.DataFrame:
    """Adds (or replaces) the signal columns of `tiers`, float64, null where unknown; rows keep their order.

    The column of `state` is `turn_state` (list of float32, one per hidden unit; null where the likelihoods are): the
    mean over the turn's first `likelihood.MAX_TOKENS` tokens of the scorer's hidden state after one layer, behind the
    context and the user header. Null in all rows where the scorer cannot tell (`base.Reader`).

    Args:
        table: One row per candidate: `turn`, and `messages` (JSON text or list of dicts, ending with the assistant's)
            or `query` and `answer`. Rows without messages have no likelihood signals. `token_ids` optional.
        tiers: Any of `text`, `embedding`, `state`, `likelihood`, `cross`, `control`; `text` adds nothing here.
            Together `state` and `likelihood` share a pass.
        embedder: What encodes; the process's MiniLM if None.
        scorer: The engine that scores; SmolLM2-135M in process if None, closed again.
        template: The scorer's `ChatTemplate`; needed with `scorer`.
        own_tokens: The table's `token_ids` are of the scorer's own vocabulary (it sampled the turns itself), so that
            they are scored as they were drawn. Otherwise the turn's text is encoded.
        own_logprobs: The table's `token_logprobs` are the scorer's own too, after the same prompts, so that the first
            pass is known; and `sampled_state` are its states after `layer`.
        skip_cut: Turns cut at the token limit (`finish_reason` is `length`) get no likelihoods. They are the longest
            ones, and never chosen unless truncated ones are allowed.
        cross_encoder: What scores turns and answers in pairs; needed for `cross`.
        layer: Layer of the scorer, counted from 1, whose state is wanted; needed for `state`.

    Raises:
        SelfplayError: A tier that does not exist or is not installed, or a column that is missing.
        EngineError: The scorer failed, or has no such layer.
    """
    unknown = sorted(set(tiers) - {"text", *SIGNALS, "control"})
    if unknown:
        raise SelfplayError(f"no signal tier {unknown[0]!r}; there are text, {', '.join(SIGNALS)}, control")
    if "state" in tiers and layer is None:
        raise SelfplayError("measuring states needs a layer")
    if "turn" not in table.columns:
        raise SelfplayError("no column `turn` to measure")
    contexts = _contexts(table)
    turns = [turn or "" for turn in table["turn"].to_list()]
    columns: dict[str, list[Any]] = {}
    if "cross" in tiers and cross_encoder is None:
        raise SelfplayError("measuring the cross tier needs a cross-encoder")
    if "embedding" in tiers or "cross" in tiers:
        queries, answers = _questions_and_answers(table, contexts)
    if cross_encoder is not None and "cross" in tiers:
        columns |= cross.cross_signals(turns, answers, cross_encoder)
    if "embedding" in tiers:
        columns |= embedding.embedding_signals(turns, queries, answers, embedder or embedding.load_embedder())
    if {*SCORED, "control"} & set(tiers):
        if skip_cut and "finish_reason" in table.columns:
            cut = (table["finish_reason"] == "length").fill_null(False)
            turns = ["" if gone else turn for turn, gone in zip(turns, cut, strict=True)]
        own = _own(table, own_tokens, own_logprobs)
        columns |= _likelihood(tiers, contexts, turns, *own, scorer, template, layer)
    return table.with_columns(
        states_column(name, values) if name == STATE else pl.Series(name, values, pl.Float64)
        for name, values in columns.items()
    )


def missing_tiers(table: pl.DataFrame) -> list[str]:
    """The tiers of which `table` lacks a column, or has one that is null for every turn that is not blank."""
    spoken = table.filter(pl.col("turn").str.strip_chars() != "")
    return [
        tier
        for tier, names in SIGNALS.items()
        if any(name not in table.columns for name in names) or (len(spoken) and spoken[names[0]].is_null().all())
    ]


def signal_versions(
    embedder: Embedder | None = None, template: Any = None, cross_encoder: PairScorer | None = None
) -> dict[str, Any]:
    """Who measured: `{"embedder": {"model", "revision"}, "scorer": {"model", "revision", "template_hash"}}`, and
    `"cross_encoder": {"model", "revision"}`.

    For `run.json`, and for rules and weights that are learned from these signals. A part that did not measure is
    left out.
    """
    versions: dict[str, Any] = {}
    if embedder is not None:
        described = embedder.describe()
        versions["embedder"] = _version(described["model"], described.get("revision"))
    if template is not None:
        tokenizer = template.tokenizer
        versions["scorer"] = _version(tokenizer.model, tokenizer.revision) | {"template_hash": tokenizer.template_hash}
    if cross_encoder is not None:
        versions["cross_encoder"] = _version(cross_encoder.model, None)
    return versions


def expected_versions(tier: str, model: str | None = None) -> dict[str, Any]:
    """What `signal_versions` will say of a tier measured by `model`, or by the default one of the tier.

    Loads no weights; may get the scorer's files.
    """
    if tier in SCORED:
        return signal_versions(None, scorer_template(model))
    return {PARTS[tier]: _version(model or embedding.DEFAULT_EMBEDDER, None)}


def _version(model: str, revision: str | None) -> dict[str, str | None]:
    from selfplay.models import fingerprint, identity

    name, pinned = identity(model)
    if pinned is None and os.path.isdir(model):  # wherever it lies, it is the same model
        name, pinned = os.path.basename(os.path.realpath(model)), fingerprint(Path(model))
    return {"model": name, "revision": revision or pinned}


def mismatches(
    measured: Mapping[str, Any], learned: Mapping[str, Any], what: str = "weights", asked: str | None = None
) -> dict[str, str]:
    """Tiers whose signals another model measured than the one rules or weights were learned with, with the reason.

    What `learned` does not record, or records as null, is not compared. `what` names it in the reason: `rules` or
    `weights`; `asked` is the measuring model as the user typed it.
    """
    found: dict[str, str] = {}
    for tier, part in PARTS.items():
        mine, theirs = measured.get(part), learned.get(part)
        if not mine or not isinstance(theirs, Mapping):
            continue
        for key, value in theirs.items():
            if value is not None and mine.get(key) != value:
                found[tier] = (
                    f"{part} {key} is {mine.get(key)!r}, but the {what} were learned with {value!r}; "
                    f"{mend(tier, what, asked or mine['model'], theirs.get('model'))}"
                )
                break
    return found


_OPTIONS = {**dict.fromkeys(SCORED, "--scorer-model"), "cross": "--cross-encoder"}


def mend(tier: str, what: str, model: str, learned: str | None = None) -> str:
    """What to do where a tier is measured by `model` but the rules or weights were learned with `learned`, or none."""
    verb, file = ("train", "RULES") if what == "rules" else ("train-ranker", "WEIGHTS")
    option = _OPTIONS.get(tier)
    training = f"selfplay {verb} JUDGED -o {file}" + (f" {option} {model}" if option else "")
    either = f"give {option} {learned}, or " if option and learned and learned != model else ""
    return f"{either}learn {what} with {model} by `{training}` and give --{what} {file}"


def default_scorer(model: str | None = None) -> tuple[Engine, Any]:
    """A scorer in process and its chat template; SmolLM2-135M, of which the shipped rules and weights were learned.

    Raises:
        SelfplayError: The model cannot be had.
    """
    from selfplay.engines.transformers import TransformersEngine

    return TransformersEngine(model or likelihood.DEFAULT_SCORER), scorer_template(model)


def scorer_template(model: str | None = None) -> Any:
    """The chat template of a scorer; of SmolLM2-135M if None."""
    from selfplay.prompting.templates import ChatTemplate
    from selfplay.prompting.tokenizer import load_tokenizer

    return ChatTemplate(load_tokenizer(model or likelihood.DEFAULT_SCORER))


def _own(
    table: pl.DataFrame, tokens: bool, logprobs: bool
) -> tuple[list[Sequence[int] | None], list[Reading | None] | None]:
    """Token ids of the scorer's own making and what it read of them, where the table has it."""
    if not tokens or "token_ids" not in table.columns:
        return [None] * len(table), None
    if not logprobs or "token_logprobs" not in table.columns:
        return table["token_ids"].to_list(), None
    known = table[SAMPLED_STATE] if SAMPLED_STATE in table.columns else [None] * len(table)
    states = [None if state is None else np.asarray(state, dtype=np.float32) for state in known]
    readings = [
        None if logprobs is None else Reading(logprobs, state)
        for logprobs, state in zip(table["token_logprobs"].to_list(), states, strict=True)
    ]
    return table["token_ids"].to_list(), readings


def _likelihood(
    tiers: Collection[str],
    contexts: Sequence[Sequence[Message] | None],
    turns: Sequence[str],
    ids: Sequence[Sequence[int] | None],
    sampled: Sequence[Reading | None] | None,
    scorer: Engine | None,
    template: Any,
    layer: int | None,
) -> dict[str, list[Any]]:
    if scorer is not None and template is None:
        raise SelfplayError("measuring likelihoods with a given scorer needs its template")
    wanted = {**SIGNALS, "control": CONTROL_SIGNALS}
    names = [name for tier in (*SCORED, "control") if tier in tiers for name in wanted[tier]]
    if scorer is None and not any(contexts):
        return {name: [None] * len(turns) for name in names}
    engine, template = (scorer, template) if scorer is not None else default_scorer()
    found: dict[str, list[Any]] = {}
    try:
        if "likelihood" in tiers:
            read = layer if "state" in tiers else None
            found |= likelihood.likelihood_signals(contexts, turns, ids, engine, template, sampled, read)
        elif layer is not None and "state" in tiers:
            found |= likelihood.turn_states(contexts, turns, ids, engine, template, sampled, layer)
        if "control" in tiers:
            found |= likelihood.control_signals(contexts, turns, ids, engine, template, sampled)
    finally:
        if scorer is None:
            engine.close()
    return found


def _contexts(table: pl.DataFrame) -> list[Sequence[Message] | None]:
    if "messages" not in table.columns:
        return [None] * len(table)
    parsed: dict[str, list[Message]] = {}  # one object per distinct text
    found: list[Sequence[Message] | None] = []
    for value in table["messages"].to_list():
        if isinstance(value, str) and value not in parsed:
            parsed[value] = json.loads(value)
        found.append(parsed[value] if isinstance(value, str) else value or None)
    return found


def _questions_and_answers(
    table: pl.DataFrame, contexts: Sequence[Sequence[Message] | None]
) -> tuple[list[str | None], list[str]]:
    if "answer" in table.columns and "query" in table.columns:
        return table["query"].to_list(), [answer or "" for answer in table["answer"].to_list()]
    if any(context is None for context in contexts):
        raise SelfplayError("measuring needs the columns `query` and `answer`, or `messages` in every row")
    queries: list[str | None] = []
    answers: list[str] = []
    for context in contexts:
        assert context is not None  # noqa: S101  # seen to two lines above
        queries.append(next((m.get("content") for m in reversed(context[:-1]) if m["role"] == "user"), None))
        answers.append(context[-1].get("content") or "")
    return queries, answers
