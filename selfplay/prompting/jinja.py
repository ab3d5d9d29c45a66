"""Renders a chat template, which is code from strangers, in Jinja's sandbox.

Gives templates what Hugging Face promises them (huggingface.co/docs/transformers/chat_templating_writing):
trimmed blocks, loop controls, `raise_exception`, `strftime_now`, a `tojson` that does not escape for HTML, and the
`generation` tag. Whatever goes wrong comes out as one `TemplateError`.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import jinja2
import jinja2.filters
import jinja2.nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from selfplay.core import Message
from selfplay.errors import SelfplayError
from selfplay.terminal import one_line

MAX_CHARACTERS = 50_000_000
MAX_REPEAT = 1_000_000
WIDE_FORMAT = re.compile(r"%[^%a-zA-Z]*(\d{5}|\*)")


class TemplateError(SelfplayError):
    """A chat template cannot be used, or refuses this conversation. Concerns one site, not the run."""


class GenerationTag(Extension):
    """`{% generation %}` marks what the assistant said, for training masks; here only its body counts."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which also refuses the plain ways to fill the memory, such as `'a' * 10**12`.

    It is no jail: a template that is bent on it can still take long.
    """

    intercepted_binops = frozenset(["*", "**", "%"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            for value, times in ((left, right), (right, left)):
                if hasattr(value, "__len__") and isinstance(times, int) and len(value) * times > MAX_REPEAT:
                    raise jinja2.exceptions.SecurityError("repeats a value too often")
        elif operator == "**" and isinstance(right, int | float) and abs(right) > 64:
            raise jinja2.exceptions.SecurityError("raises to a power over 64")
        elif operator == "%" and isinstance(left, str) and WIDE_FORMAT.search(left):
            raise jinja2.exceptions.SecurityError("formats too widely")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        if isinstance(getattr(obj, "__self__", None), str):  # ljust, center, zfill …
            _refuse_wide(args, kwargs)
        return super().call(context, obj, *args, **kwargs)


def _refuse_wide(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if any(isinstance(value, int) and value > MAX_REPEAT for value in (*args, *kwargs.values())):
        raise jinja2.exceptions.SecurityError("asks for too wide a text")


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that pads, with its widths checked."""

    def guarded(value: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_wide(args, kwargs)
        return function(value, *args, **kwargs)

    return guarded


def _format(value: Any, *args: Any, **kwargs: Any) -> Any:
    if WIDE_FORMAT.search(str(value)):
        raise jinja2.exceptions.SecurityError("formats too widely")
    return jinja2.filters.do_format(value, *args, **kwargs)


class TemplateRenderer:
    """One compiled chat template.

    Attributes:
        now: The moment that `strftime_now` shows, fixed here so that all prompts of a run agree.
    """

    def __init__(self, template: str, model: str, now: datetime | None = None) -> None:
        self.now = now or datetime.now()
        self._model = model
        environment = Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationTag]
        )
        environment.filters["tojson"] = _tojson
        environment.filters["format"] = _format
        for name in ("batch", "center", "indent", "slice"):
            environment.filters[name] = _guarded(environment.filters[name])
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = self.now.strftime
        try:
            self._template = environment.from_string(template)
        except (jinja2.TemplateError, RecursionError) as error:
            raise TemplateError(f"{model}: the chat template is not valid Jinja: {_one_line(error)}") from None

    def render(self, messages: Sequence[Message], variables: dict[str, str], add_generation_prompt: bool) -> str:
        """Text for `messages`.

        Raises:
            TemplateError: The template raised, whatever it raised.
        """
        pieces: list[str] = []
        size = 0
        try:
            for piece in self._template.generate(
                **variables,
                messages=[copy.deepcopy(dict(message)) for message in messages],
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
            ):
                size += len(piece)
                if size > MAX_CHARACTERS:
                    raise jinja2.exceptions.SecurityError("writes without end")
                pieces.append(piece)
        except Exception as error:  # template code can raise anything
            raise TemplateError(
                f"{self._model}: the chat template refuses this conversation: {_one_line(error)}"
            ) from None
        return "".join(pieces)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _one_line(error: BaseException) -> str:
    return one_line(error, 200) or type(error).__name__
