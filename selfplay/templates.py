"""Prompts that end in a role header, cut out of what the model's own chat template renders.

A user message holding a sentinel is rendered after the conversation. What stands before the sentinel is the prompt,
what follows it ends the turn. So nothing here knows a family by name; a template that moves, drops or rejects the
sentinel is told so in one line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any

from selfplay.core import Message, Prompt
from selfplay.jinja import TemplateError
from selfplay.tokenizer import Tokenizer

SENTINELS = ("qZ7selfplayFirstXq", "qZ7selfplayAnswerXq", "qZ7selfplayTurnXq")
SYSTEM_ROLES = ("system", "developer")
NEUTRAL_ANSWER = "OK."
"""Stands for "no answer" where a template leaves out or refuses an empty turn."""


class ChatTemplate:
    """Prompts, stops and headers of one model.

    Attributes:
        user_header: Text between the end of an assistant turn and the user's words.
        assistant_header: The same for the assistant, as earlier turns have it; None where the family has none apart.
        stop: Strings that end a user turn.
        stop_token_ids: Tokens that end a user turn, the model's end-of-sequence tokens included.

    Raises:
        TemplateError: The template cannot show where a later user message begins; the message says why.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        first, answer, turn = SENTINELS
        text = tokenizer.render([_user(first), _assistant(answer), _user(turn)])
        places = self._places(text)
        after_user = text[places[0] + len(first) : places[1]]
        after_answer = text[places[1] + len(answer) : places[2]]
        end = text[places[2] + len(turn) :]
        end_of_answer = tokenizer.render([_user(first), _assistant(answer)]).partition(answer)[2]
        self._opening, self.user_header = text[: places[0]], self._without_closing(after_answer, end_of_answer, end)
        header = self._without_closing(after_user, end)
        self.assistant_header = header if header.strip() else None
        closing = after_user.removesuffix(header)
        self.stop, self.stop_token_ids = self._stops(closing, after_user)
        # SentencePiece joins the space of "[INST] " to the word behind it; as a token of its own it is a place where
        # the model never was.
        ids = tokenizer.encode(self.user_header)
        self._joins_space = tokenizer.encode(self.user_header + "a")[: len(ids)] != ids

    def user_prompt(self, messages: Sequence[Message], system: str = "keep") -> Prompt:
        """The context, then the user header: what the template puts before the user's next message.

        Args:
            messages: A conversation that ends with the assistant.
            system: `keep` changes nothing, `drop` takes the conversation's system messages away (a template's own
                default stays), any other text takes their place.

        Raises:
            TemplateError: The template refuses this conversation, or loses a part of it.
        """
        if not messages or messages[-1].get("role") != "assistant":
            raise TemplateError(f"{self.tokenizer.model}: the context must end with an assistant message")
        chosen = _with_system(messages, system)
        text = self._cut(chosen)
        if system not in ("keep", "drop") and system.strip() not in text:
            raise TemplateError(f"{self.tokenizer.model}: the chat template leaves out the system message")
        return self._prompt(text)

    def assistant_prompt(self, messages: Sequence[Message], system: str = "keep") -> Prompt | None:
        """The same context, then the assistant header; None where the family has none apart (Mistral).

        Cut from the text of `user_prompt`, since strict templates reject two assistant messages in a row.
        """
        text = self.user_prompt(messages, system).text
        if self.assistant_header is None or not text.endswith(self.user_header):
            return None
        return self._prompt(text.removesuffix(self.user_header) + self.assistant_header)

    def bare_user_prompt(self) -> Prompt:
        """Only the user header, behind the beginning-of-sequence token if the template starts with it."""
        bos = self.tokenizer.special_tokens.get("bos_token", "")
        opens = bool(bos) and self._opening.startswith(bos) and not self.user_header.startswith(bos)
        return self._prompt((bos if opens else "") + self.user_header)

    def empty_answer(self, messages: Sequence[Message]) -> tuple[tuple[Message, ...], str]:
        """The context with its last answer taken away, for the answer PMI.

        Returns:
            The messages, and `empty` or, where the template cannot show an empty turn, `neutral: ` and the text that
            stands for it.
        """
        kept = tuple(messages[:-1])
        if self._shows_empty_turn:
            return (*kept, _assistant("")), "empty"
        return (*kept, _assistant(NEUTRAL_ANSWER)), f"neutral: {NEUTRAL_ANSWER}"

    @cached_property
    def _shows_empty_turn(self) -> bool:
        first, answer, turn = SENTINELS
        with_answer = self.tokenizer.render([_user(first), _assistant(answer), _user(turn)])
        try:
            without = self.tokenizer.render([_user(first), _assistant(""), _user(turn)])
        except TemplateError:
            return False
        return without.split() == with_answer.replace(answer, "").split()

    def _prompt(self, text: str) -> Prompt:
        ids = self.tokenizer.encode(text.rstrip(" ") if self._joins_space else text)
        return Prompt(text, tuple(ids), self.stop, self.stop_token_ids)

    def _places(self, text: str) -> list[int]:
        """Where the three sentinels stand.

        Raises:
            TemplateError: One is missing or doubled, or they are out of order.
        """
        names = ("an earlier user message", "an assistant message", "a later user message")
        for sentinel, name in zip(SENTINELS, names, strict=True):
            if (count := text.count(sentinel)) != 1:
                how = "leaves out" if count == 0 else "repeats"
                raise TemplateError(f"{self.tokenizer.model}: no user turn can be cut: the chat template {how} {name}")
        places = [text.index(sentinel) for sentinel in SENTINELS]
        if places != sorted(places):
            raise TemplateError(f"{self.tokenizer.model}: no user turn can be cut: the chat template reorders messages")
        return places

    def _cut(self, messages: Sequence[Message]) -> str:
        """Text before a user message that follows `messages`."""
        sentinel = SENTINELS[2]
        while any(sentinel in str(message) for message in messages):
            sentinel += "q"
        problems: list[TemplateError] = []
        for variant in _variants([*messages, _user(sentinel)]):
            try:
                text = self.tokenizer.render(variant)
            except TemplateError as error:
                problems.append(error)
                continue
            lost = _lost(variant, text)
            if lost is None and text.count(sentinel) == 1:
                return text.partition(sentinel)[0]
            what = lost or "the next user message"
            problems.append(TemplateError(f"{self.tokenizer.model}: the chat template leaves out {what}"))
        raise problems[0]

    def _without_closing(self, gap: str, *closings: str) -> str:
        """The header in `gap`, which is what ended the turn before followed by it."""
        for closing in closings:
            if closing and gap.startswith(closing):
                return gap.removeprefix(closing)
        parts = self._parts(gap)
        shared = [
            len(list(takewhile(lambda pair: pair[0] == pair[1], zip(parts, self._parts(closing), strict=False))))
            for closing in closings
        ]
        return "".join(parts[max(shared, default=0) :])

    def _parts(self, text: str) -> list[str]:
        """`text` in pieces: control tokens, and what stands between them."""
        parts: list[str] = []
        plain = ""
        while text:
            token = self.tokenizer.leading_token(text)
            if token is None:
                plain, text = plain + text[0], text[1:]
                continue
            parts += [plain, token] if plain else [token]
            plain, text = "", text[len(token) :]
        return [*parts, plain] if plain else parts

    def _stops(self, closing: str, after_user: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Strings and tokens that end a user turn, given what the template puts after one."""
        ends = [closing.strip() or after_user.strip()]
        if not closing.strip():
            # No end-of-turn token: whatever role comes next ends the turn.
            ends += [self.user_header.strip(), *self._other_role_tags()]
        strings: list[str] = []
        ids = set(self.tokenizer.eos_token_ids)
        for end in filter(None, ends):
            token = self.tokenizer.leading_token(end)
            index = self.tokenizer.token_id(token) if token else None
            if index is not None:
                ids.add(index)
            else:
                line = self._parts(end)[0].split("\n")[0].strip()
                strings += [line] if line not in strings else []
        return tuple(strings), tuple(sorted(ids))

    def _other_role_tags(self) -> Iterator[str]:
        """Control tokens that open a system or a tool message, where the template has such."""
        first, answer, turn = SENTINELS
        opening = set(self._parts(self._opening))
        contexts: list[list[Message]] = [
            [{"role": "system", "content": turn}, _user(first)],
            [_user(first), _assistant(answer), {"role": "tool", "content": turn}, _assistant(first)],
        ]
        for context in contexts:
            try:
                before = self.tokenizer.render(context).partition(turn)[0]
            except TemplateError:
                continue
            tags = [
                part for part in self._parts(before.rpartition(answer)[2]) if self.tokenizer.token_id(part) is not None
            ]
            yield from [tag for tag in tags if tag not in opening][:1]


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


def _with_system(messages: Sequence[Message], system: str) -> list[Message]:
    if system == "keep":
        return list(messages)
    rest = [message for message in messages if message.get("role") not in SYSTEM_ROLES]
    return rest if system == "drop" else [{"role": "system", "content": system}, *rest]


def _variants(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """The same messages in the shapes that templates differ in, the usual one first.

    Arguments of tool calls as objects (Hugging Face) or JSON strings (OpenAI), no content as "" or None, and
    content as text or as a list of parts (vision models).
    """
    objects = [_arguments_as_objects(message) for message in messages]
    seen: list[list[Message]] = []
    for source in (objects, list(messages)):
        for nothing in ("", None):
            variant = [{**m, "content": nothing} if not m.get("content") and "tool_calls" in m else m for m in source]
            if variant not in seen:
                seen.append(variant)
                yield variant
    yield [
        {**m, "content": [{"type": "text", "text": m["content"]}]} if isinstance(m.get("content"), str) else m
        for m in objects
    ]


def _arguments_as_objects(message: Message) -> Message:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return {**message, "tool_calls": [_call_with_object(call) for call in calls]}


def _call_with_object(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        return {**call, "function": {**function, "arguments": json.loads(function["arguments"])}}
    except ValueError:
        return call


def _lost(messages: Sequence[Message], text: str) -> str | None:
    """What the template silently left out: a tool call or a tool's result. (Answers it may trim or strip.)"""
    for message in messages:
        for call in message.get("tool_calls") or ():
            name = call.get("function", call).get("name") if isinstance(call, dict) else None
            if isinstance(name, str) and name not in text:
                return f"the tool call {name}"
        content = message.get("content")
        if message.get("role") == "tool" and isinstance(content, str):
            word = max(re.findall(r"[A-Za-z0-9]+", content), key=len, default="")
            if word not in text:
                return "a tool's result"
    return None
