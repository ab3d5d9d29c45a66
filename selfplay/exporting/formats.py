"""The formats: from judged turns and dialogues to rows as trainers read them.

A user simulator is trained with the roles flipped: the user's turns become the assistant's, which are what trainers'
completions and assistant-only masks cover. The assistant is trained on dialogues as they are.

A row comes with its conversation's id, which decides its split.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from selfplay.choosing.preferences import KINDS, pairs
from selfplay.core import Message
from selfplay.dataset import flip, with_extra
from selfplay.errors import UsageError
from selfplay.exporting.material import FIGURES, Dialogue, Judged, dialogues, judged
from selfplay.results import Results

Rows = Iterator[tuple[str, dict[str, Any]]]
"""Conversation ids and rows."""
KEPT = ("role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content")
"""What of a message is exported."""
SHAREGPT = {"user": "human", "assistant": "gpt", "tool": "observation", "developer": "system"}


@dataclass(frozen=True, slots=True)
class Options:
    """How rows are made.

    Attributes:
        side: Whose turns are learned.
        pairs: dpo: what a chosen turn is set against, as `run --pairs`.
        margin: dpo: the least by which the scores of a pair differ.
        system, opening: Put before what a user simulator sees: a system message, and a user message where the
            dialogue would begin with the simulator's own turn, which some chat templates refuse.
        columns: Columns of the input to keep.
    """

    side: Literal["user", "assistant"] = "user"
    pairs: str = "both"
    margin: float = 0.0
    system: str | None = None
    opening: str | None = None
    columns: tuple[str, ...] = ()

    def seen(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Flipped messages with what comes before them."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        if self.opening and messages and messages[0]["role"] == "assistant":
            first.append({"role": "user", "content": self.opening})
        return [*first, *map(dict, messages)]

    def kept(self, row: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
        """The row with the columns asked for."""
        return with_extra(row, {name: extra[name] for name in self.columns if name in extra})


def prompt_completion(results: Results, options: Options) -> Rows:
    """A judged good user turn after what came before it; for the assistant, an answer to such a turn."""
    if options.side == "assistant":
        yield from _answers(results, options)
        return
    for found in judged(results):
        if found.good and found.turn["turn"].strip():
            told = {name: found.turn[name] for name in FIGURES}
            row = _keys(found) | {"prompt": options.seen(flip(found.messages)), "completion": _said(found), **told}
            yield found.turn["conversation_id"], options.kept(row, found.extra)


def _answers(results: Results, options: Options) -> Rows:
    for dialogue in _answered(results):
        messages = _plain(dialogue.messages)
        for place in sorted(dialogue.good):
            end = place + 1
            while end < len(messages) and messages[end]["role"] != "user":
                end += 1
            answer = messages[place + 1 : end]
            if answer and answer[-1]["role"] == "assistant" and answer[-1]["content"]:
                row = {"id": f"{dialogue.id}#{place}", "conversation_id": dialogue.conversation_id}
                row |= {"prompt": messages[: place + 1], "completion": answer} | _tools(dialogue)
                yield dialogue.conversation_id, options.kept(row, dialogue.extra)


def messages(results: Results, options: Options) -> Rows:
    """Dialogues, for losses on the assistant's messages alone: flipped for a user simulator, else as they are."""
    for dialogue, talk, _ in _talks(results, options):
        row = {"id": dialogue.id, "conversation_id": dialogue.conversation_id, "messages": talk}
        row |= dialogue.figures if options.side == "user" else _tools(dialogue)
        yield dialogue.conversation_id, options.kept(row, dialogue.extra)


def openai(results: Results, options: Options) -> Rows:
    """OpenAI's fine-tuning rows. Of a user simulator's turns those count that were judged and found good."""
    for dialogue, talk, good in _talks(results, options):
        row: dict[str, Any] = {"messages": [_openai(message) for message in talk]}
        if options.side == "user":
            for place, message in enumerate(row["messages"]):
                if message["role"] == "assistant":
                    message["weight"] = int(place in good)
        elif isinstance(tools := dialogue.extra.get("tools"), list):
            row["tools"] = tools
        yield dialogue.conversation_id, row


def _openai(message: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in message.items() if name != "reasoning_content"}
    if "tool_calls" in shown:
        shown["tool_calls"] = [_call(call, as_text=True) for call in shown["tool_calls"]]
    return shown


def sharegpt(results: Results, options: Options) -> Rows:
    """`conversations` of `from` and `value`; a tool call is a turn of its own."""
    for dialogue, talk, _ in _talks(results, options):
        turns = []
        for message in talk:
            if message["content"]:
                turns.append({"from": SHAREGPT.get(message["role"], message["role"]), "value": message["content"]})
            for call in message.get("tool_calls") or ():
                function = _call(call, as_text=False)["function"]
                turns.append({"from": "function_call", "value": json.dumps(function, ensure_ascii=False)})
        row = {"id": dialogue.id, "conversation_id": dialogue.conversation_id, "conversations": turns}
        yield dialogue.conversation_id, options.kept(row, dialogue.extra)


def dpo(results: Results, options: Options) -> Rows:
    """Pairs of a better and a worse turn, as in `pairs.jsonl`; of cleaned data also replacements against originals."""
    runs = results.runs()
    if results.verb == "clean":
        if not runs:
            raise UsageError(
                f"{results.folder}: cleaned data has one turn at each place, so there is nothing to pair; clean with "
                "--on-bad replace, or export kto"
            )
        yield from _replaced(results, options)
    parts = (part for run in runs for part in run.parts()) if results.verb == "clean" else results.parts()
    for row, extra in pairs(parts, KINDS[options.pairs], options.margin):
        row["prompt"] = options.seen(row["prompt"])
        yield row["conversation_id"], options.kept(row, extra)


def _replaced(results: Results, options: Options) -> Rows:
    """The turn that was put in against the one that it replaced. What the latter would score is not known."""
    for row in results.conversations():
        original, now = row.get("original_messages"), row["messages"]
        place = len(now) - 1
        if not original or len(original) <= place or now[place] == original[place] or now[place]["role"] != "user":
            continue
        worse = next((turn for turn in row["user_turns"] if turn["index"] == place and turn["bad"]), None)
        if worse is None or options.margin > 0 or not original[place]["content"].strip():
            continue
        pair = {
            "id": f"{row['id']}#{place - 1}/replaced",
            "site_id": f"{row['id']}#{place - 1}",
            "conversation_id": str(row["id"]),
            "kind": "replaced",
            "prompt": options.seen(flip(now[:place])),
            "chosen": [{"role": "assistant", "content": now[place]["content"]}],
            "rejected": [{"role": "assistant", "content": original[place]["content"]}],
            "rejected_label": worse["label"],
            "rejected_rule": worse["rule"],
        }
        yield pair["conversation_id"], options.kept(pair, row)


def kto(results: Results, options: Options) -> Rows:
    """Single turns with `label`: good ones on which no rule fired are true, bad ones false, others left out."""
    for found in judged(results):
        if found.usable and ((found.good and found.turn["genuine"]) or found.turn["bad"]):
            row = _keys(found) | {"prompt": options.seen(flip(found.messages)), "completion": _said(found)}
            row |= {"label": found.good, "turn_label": found.turn["label"], "rule": found.turn["rule"]}
            yield found.turn["conversation_id"], options.kept(row, found.extra)


def reward(results: Results, options: Options) -> Rows:
    """All turns with `score`, 0..1: groundedness times p_genuine, or p_genuine where the former is not known."""
    for found in judged(results):
        if found.usable and found.turn["score"] is not None:
            row = _keys(found) | {"prompt": options.seen(flip(found.messages)), "completion": _said(found)}
            row |= {name: found.turn[name] for name in ("score", "groundedness", "p_genuine")}
            row |= {"passed": not found.turn["bad"], "turn_label": found.turn["label"]}
            yield found.turn["conversation_id"], options.kept(row, found.extra)


def _keys(found: Judged) -> dict[str, Any]:
    return {"id": found.id, "conversation_id": found.turn["conversation_id"]}


def _said(found: Judged) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": found.turn["turn"]}]


def _talks(results: Results, options: Options) -> Iterator[tuple[Dialogue, list[dict[str, Any]], set[int]]]:
    """Dialogues with their messages as one side learns them, and the places there of good turns that it learns."""
    if options.side == "assistant":
        for dialogue in _answered(results):
            yield dialogue, _plain(dialogue.messages), set()
        return
    for dialogue in dialogues(results):
        if not dialogue.good:
            continue
        end = max(dialogue.good) + 1
        talk = options.seen(flip(dialogue.messages[:end]))
        # Flipping leaves messages out, so places are counted from the end.
        good = {len(talk) - 1 - len(flip(dialogue.messages[place + 1 : end])) for place in dialogue.good}
        yield dialogue, talk, good


def _answered(results: Results) -> Iterator[Dialogue]:
    """Dialogues up to the assistant's last answer, or the last before one that was cut at the token limit."""
    if results.verb == "run":
        raise UsageError(
            f"{results.folder}: the turns that a run chooses have no answers yet, so no assistant can learn from them; "
            "`selfplay play` writes dialogues (chosen.jsonl has the messages as they are)"
        )
    for dialogue in dialogues(results):
        whole = dialogue.messages[: min(dialogue.cut, default=None)]
        said = [place for place, m in enumerate(whole) if m["role"] == "assistant" and m["content"]]
        if said:
            end = said[-1] + 1
            good = frozenset(place for place in dialogue.good if place < end)
            yield Dialogue(dialogue.id, dialogue.conversation_id, whole[:end], good, dialogue.extra)


def _plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [{name: message[name] for name in KEPT if message.get(name) is not None} for message in messages]


def _tools(dialogue: Dialogue) -> dict[str, Any]:
    """The tools that the assistant had, as JSON text: their schemas have no one shape."""
    tools = dialogue.extra.get("tools")
    if not tools:
        return {}
    return {"tools": tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False)}


def _call(call: Mapping[str, Any], as_text: bool) -> dict[str, Any]:
    """A tool call in OpenAI's form, its arguments as JSON text or as they are."""
    function = dict(call.get("function") or {name: call.get(name) for name in ("name", "arguments")})
    if as_text and not isinstance(function.get("arguments"), str):
        function["arguments"] = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
    return {**call, "type": "function", "function": function}


def as_assistant(results: Results, options: Options) -> Rows:
    """`messages` for the assistant, whichever side was asked for."""
    return messages(results, replace(options, side="assistant"))


FORMATS: Mapping[str, Callable[[Results, Options], Rows]] = {
    "prompt-completion": prompt_completion,
    "messages": messages,
    "assistant": as_assistant,
    "dpo": dpo,
    "kto": kto,
    "reward": reward,
    "openai": openai,
    "sharegpt": sharegpt,
}
