"""Prompts that end in a role header, cut out of what the model's own chat template renders.

A user message holding a sentinel is rendered after the conversation; what stands before the sentinel is the prompt,
nothing more. Headers and stops are read off in `selfplay.prompting.headers`.
"""

from __future__ import annotations

from collections.abc import Sequence

from selfplay.core import Message, Prompt
from selfplay.prompting.headers import FIRST, TURN, plain, read_headers
from selfplay.prompting.jinja import TemplateError
from selfplay.prompting.tokenizer import Tokenizer
from selfplay.prompting.variants import lost, variants

SYSTEM_ROLES = ("system", "developer")
NEUTRAL_ANSWER = "OK."
"""Stands for "no answer" where a template leaves out or refuses an empty turn."""


class ChatTemplate:
    """Prompts of one model.

    Attributes:
        tokenizer: The model's tokenizer, whose chat template this is.
        headers: Its role headers and stops.

    Raises:
        TemplateError: The template cannot show where a later user message begins; the message says why.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.headers = read_headers(tokenizer)
        # SentencePiece joins the space of "[INST] " to the word behind it. As a token of its own the model has never
        # seen it, so the token ids end before it (github.com/mistralai/cookbook, tokenization/boundaries.md).
        ids = tokenizer.encode(self.headers.user)
        self._joins_space = tokenizer.encode(self.headers.user + "a")[: len(ids)] != ids

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
        return self._prompt(self._context(messages, system))

    def answer_prompt(self, messages: Sequence[Message], system: str = "keep") -> Prompt:
        """What the template puts before the assistant's answer, as it shows that answer once the dialogue has gone on.

        So the prompt of the next user turn begins with this one and the answer, token for token, and a prefix cache
        serves it. Where a template adds something only to the last answer, such as an opened block of thinking, this
        prompt is without it.

        Args:
            messages: A conversation that ends with the user, or with a tool's result.
            system: As `user_prompt`.

        Raises:
            TemplateError: As `user_prompt`.
        """
        if not messages or messages[-1].get("role") not in ("user", "tool"):
            raise TemplateError(f"{self.tokenizer.model}: the context must end with a user message")
        return self._prompt(self._context(messages, system))

    def next_prompt(self, messages: Sequence[Message], system: str = "keep") -> Prompt:
        """The prompt of whoever speaks next: the user behind an answer, else the assistant."""
        answered = bool(messages) and messages[-1].get("role") == "assistant"
        return self.user_prompt(messages, system) if answered else self.answer_prompt(messages, system)

    def assistant_prompt(self, messages: Sequence[Message], system: str = "keep") -> Prompt | None:
        """The same context, then the assistant header; None where the family has none apart (Mistral).

        Made from the text of `user_prompt`, since strict templates reject two assistant messages in a row.

        Raises:
            TemplateError: As `user_prompt`.
        """
        text = self.user_prompt(messages, system).text
        if self.headers.assistant is None or not text.endswith(self.headers.user):
            return None
        return self._prompt(text.removesuffix(self.headers.user) + self.headers.assistant)

    def bare_user_prompt(self) -> Prompt:
        """Only the user header, behind the control tokens that every text of this template begins with."""
        return self._prompt(self.headers.opening + self.headers.user)

    def empty_answer(self, messages: Sequence[Message]) -> tuple[tuple[Message, ...], str]:
        """The context with its last answer taken away, for the answer PMI.

        Returns:
            The messages, and `empty` or, where the template cannot show an empty turn, `neutral: ` and the text that
            stands for it.
        """
        kept = tuple(messages[:-1])
        if self.headers.shows_empty:
            return (*kept, plain("assistant", "")), "empty"
        return (*kept, plain("assistant", NEUTRAL_ANSWER)), f"neutral: {NEUTRAL_ANSWER}"

    def _prompt(self, text: str) -> Prompt:
        ids = self.tokenizer.encode(text.rstrip(" ") if self._joins_space else text)
        return Prompt(text, tuple(ids), self.headers.stop, self.headers.stop_token_ids)

    def _context(self, messages: Sequence[Message], system: str) -> str:
        """Text before the next message, with the system message that `system` says."""
        rest = [message for message in messages if message.get("role") not in SYSTEM_ROLES]
        if system == "keep":
            return self._cut(messages)
        if system == "drop":
            return self._cut(rest)
        text = self._cut([plain("system", system), *rest])
        if system.strip() not in text:
            raise TemplateError(f"{self.tokenizer.model}: the chat template leaves out the system message")
        return text

    def _cut(self, messages: Sequence[Message]) -> str:
        """Text before the message that follows `messages`."""
        try:
            return self._before_turn(messages)
        except TemplateError as error:
            rest = [message for message in messages if message.get("role") not in SYSTEM_ROLES]
            if len(rest) == len(messages):
                raise
            try:
                self._before_turn(rest)
            except TemplateError:
                raise error from None
            raise TemplateError(
                f"{error}; it takes the conversation without its system message: --system drop"
            ) from None

    def _before_turn(self, messages: Sequence[Message]) -> str:
        sentinel = TURN
        while any(sentinel in str(message) for message in messages):
            sentinel += "q"
        ahead = [plain("user", sentinel)]
        if messages[-1].get("role") != "assistant":
            ahead = [plain("assistant", sentinel), plain("user", FIRST)]
        problems: list[TemplateError] = []
        for shape in variants([*messages, *ahead], self.headers.as_parts):
            try:
                text = self.tokenizer.render(shape)
            except TemplateError as error:
                problems.append(error)
                continue
            missing = lost(shape, text)
            if missing is None and text.count(sentinel) == 1:
                return text.partition(sentinel)[0]
            what = missing or f"loses the next {ahead[0]['role']} message"
            problems.append(TemplateError(f"{self.tokenizer.model}: the chat template {what}"))
        raise problems[0]
