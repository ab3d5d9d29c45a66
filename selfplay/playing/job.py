"""What the options of `play` describe: a job for each side, and when dialogues end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from selfplay import job
from selfplay.config import PERSONA, SampleConfig
from selfplay.engines.opening import EngineOptions
from selfplay.errors import UsageError
from selfplay.job import Job
from selfplay.playing.prompts import Start

END = "{end}"
"""Stands for the end marker in --system."""
MARKER = "###STOP###"
"""As in tau-bench (Yao et al. 2024, arXiv 2406.12045); the filter calls turns that hold it malformed."""
PERSONA_TEXT = (
    "The user in this conversation is the following person, or wants the following:\n{persona}\n\n"
    "The user writes as this person would, in the first person, reacts to each answer, and follows the goal step by "
    "step without giving everything away at once. Once the goal is reached or nothing is left to ask, the user writes "
    "{end} and nothing else."
)


@dataclass(frozen=True, slots=True)
class PlayJob:
    """All options of a play, checked against each other.

    Attributes:
        budget: Most tokens of a dialogue; None for what the models' contexts allow.
        marker: What a primed user ends with; None where nobody is told of one.
    """

    assistant: Job
    user: Job
    rounds: int
    start: Start
    budget: int | None
    allow_cut: bool
    persona: str | None
    marker: str | None

    @property
    def one_engine(self) -> bool:
        """Whether both sides can share an engine, and with it the prefix cache."""
        return self.assistant.engine == self.user.engine and not self.user.engine.chat

    def settings(self, assistant: SampleConfig, user: SampleConfig) -> dict[str, Any]:
        """What decides the dialogues, to be saved and compared on resume; more rounds may be played later."""
        return {
            "assistant": assistant.as_json(),
            "user": user.as_json(),
            "start": self.start,
            "budget": self.budget,
            "allow_cut_answers": self.allow_cut,
            "marker": self.marker,
        }


def from_options(values: Mapping[str, Any]) -> PlayJob:
    """The play that the options describe.

    Raises:
        UsageError: Options that do not fit together.
    """
    given = dict(values)
    names = ("rounds", "start", "budget", "allow_cut")
    own = {name: given.pop(name) for name in names}
    assistant_chat = given.pop("assistant_chat")
    persona, marker = given.pop("persona"), given.pop("end_marker")
    other = {name: given.pop(f"user_{name}") for name in ("model", "engine", "base_urls", "tokenizer")}
    answering = {name: given.pop(f"assistant_{name}") for name in ("temperature", "top_p", "max_tokens")}
    system = _primed(given["system"], persona, marker)
    common = given | {"turns": "last", "system": "keep"}
    sampling = {
        "temperatures": [(answering["temperature"], 1)],
        "top_p": answering["top_p"],
        "top_k": 0,
        "min_p": 0.0,
        "max_tokens": answering["max_tokens"],
        "until_survivors": None,
        "max_n": None,
    }
    assistant = job.from_options({k: v for k, v in (common | sampling).items() if k != "rules"})
    user = job.from_options(common | {"system": system, "select": 1, "diversity": 0.0})
    primed = system not in ("keep", "drop")
    if persona is not None and user.engine.chat:
        raise UsageError("--persona-column does not go with --chat, whose instruction is fixed")
    if assistant_chat and own["budget"] is not None:
        raise UsageError("--budget counts tokens by the assistant's chat template, which --assistant-chat leaves out")
    return PlayJob(
        assistant=replace(assistant, engine=replace(assistant.engine, chat=assistant_chat)),
        user=_other(user, other),
        persona=persona,
        marker=(marker or MARKER) if primed else None,
        **own,
    )


def _other(user: Job, given: Mapping[str, Any]) -> Job:
    """The user's side with an engine or model of its own, where any was named."""
    if not any(given.values()):
        return user
    engine: EngineOptions = user.engine
    kind = given["engine"] or engine.engine
    same_place = kind == engine.engine and not given["base_urls"]
    if same_place and engine.engine == "sglang" and engine.base_urls and given["model"]:
        raise UsageError("--user-model: an SGLang server serves one model; name the user's with --user-base-url")
    if engine.engine != "transformers" and kind == "transformers" and not given["model"]:
        raise UsageError("--user-engine transformers needs --user-model")
    own_model = given["model"] is not None or bool(given["base_urls"])
    changed = replace(
        engine,
        engine=kind,
        model=given["model"] if own_model else engine.model,
        revision=None if own_model else engine.revision,
        base_urls=engine.base_urls if same_place else tuple(given["base_urls"]),
        launch=engine.launch and same_place,
        in_process=engine.in_process and same_place,
    )
    tokenizer = given["tokenizer"] or (None if own_model else user.tokenizer)
    return replace(user, engine=changed, tokenizer=tokenizer)


def _primed(system: str, persona: str | None, marker: str | None) -> str:
    """`--system` with the default text where rows name personas, and the end marker put in."""
    if persona is None and PERSONA in system:
        raise UsageError(f"--system holds {PERSONA}: name the column that it stands for with --persona-column")
    if persona is not None:
        if system == "drop":
            raise UsageError("--persona-column puts a system message before the user's turns; --system drop takes it")
        system = PERSONA_TEXT if system == "keep" else system
        if PERSONA not in system:
            raise UsageError(f"--system needs {PERSONA} where the text of --persona-column belongs")
    if marker is not None and (system in ("keep", "drop") or not marker.strip()):
        raise UsageError(
            "--end-marker is for primed users: give --persona-column or --system TEXT, and no blank marker"
        )
    return system.replace(END, marker or MARKER)
