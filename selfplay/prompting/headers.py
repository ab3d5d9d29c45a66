"""Role headers and stops of a model, read off what its chat template renders around three sentinels.

No family is known by name here. A template that moves, drops, doubles or rejects the sentinels is told so in one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from selfplay.core import Message
from selfplay.prompting.jinja import TemplateError
from selfplay.prompting.tokenizer import Tokenizer
from selfplay.prompting.variants import variants

FIRST, ANSWER, TURN = "qZ7selfplayFirstXq", "qZ7selfplayAnswerXq", "qZ7selfplayTurnXq"


@dataclass(frozen=True, slots=True)
class Headers:
    """What a chat template writes around turns.

    Attributes:
        opening: Control tokens that the template begins with, such as `<bos>` or `[gMASK]<sop>`; "" if none.
        user: Text between the end of an assistant turn and the user's words.
        assistant: The same for the assistant, as earlier turns have it; None where the family has none apart.
        stop: Strings that end a user turn.
        stop_token_ids: Tokens that end a user turn, the model's end-of-sequence tokens included; ascending.
        as_parts: Whether the template takes content only as a list of parts.
        shows_empty: Whether the template renders an assistant turn without content as an empty turn.
    """

    opening: str
    user: str
    assistant: str | None
    stop: tuple[str, ...]
    stop_token_ids: tuple[int, ...]
    as_parts: bool
    shows_empty: bool


def read_headers(tokenizer: Tokenizer) -> Headers:
    """Renders sentinels with the model's chat template and reads its headers and stops off.

    Raises:
        TemplateError: The template does not show where a later user message begins, and why.
    """
    try:
        return _read(tokenizer, as_parts=False)
    except TemplateError as error:
        try:
            return _read(tokenizer, as_parts=True)
        except TemplateError:
            raise error from None


def plain(role: str, content: str) -> Message:
    """A message of just a role and a content."""
    return {"role": role, "content": content}


def _read(tokenizer: Tokenizer, as_parts: bool) -> Headers:
    def render(*messages: Message) -> str:
        return tokenizer.render(next(variants(messages, as_parts)))

    text = render(plain("user", FIRST), plain("assistant", ANSWER), plain("user", TURN))
    before, after_user, after_answer, end = _cut(tokenizer, text)
    end_of_answer = render(plain("user", FIRST), plain("assistant", ANSWER)).partition(ANSWER)[2]
    user = _header(tokenizer, after_answer, (end_of_answer, end))
    assistant = _header(tokenizer, after_user, (end,))
    controls = [piece for piece in tokenizer.pieces(after_user) if tokenizer.token_id(piece) is not None]
    if not assistant.strip() and len(controls) > 1:
        # The template writes the assistant's header behind every user turn, the last one too.
        assistant = after_user[after_user.index(controls[1], after_user.index(controls[0]) + len(controls[0])) :]
    closing = after_user.removesuffix(assistant)
    tags: list[str] = []
    if not closing.strip():
        # No end-of-turn token: whatever role comes next ends the turn.
        tags = [user, *_other_tags(tokenizer, render, before, end_of_answer)]
    stop, ids = _stops(tokenizer, closing if closing.strip() else after_user, tags)
    try:
        empty = render(plain("user", FIRST), plain("assistant", ""), plain("user", TURN))
    except TemplateError:
        empty = ""
    return Headers(
        opening=_opening(tokenizer, before.removesuffix(user), user),
        user=user,
        assistant=assistant if assistant.strip() else None,
        stop=stop,
        stop_token_ids=ids,
        as_parts=as_parts,
        shows_empty="".join(empty.split()) == "".join(text.replace(ANSWER, "").split()),
    )


def _cut(tokenizer: Tokenizer, text: str) -> list[str]:
    """`text` cut at the three sentinels.

    Raises:
        TemplateError: One is missing or doubled, or they are out of order.
    """
    names = {FIRST: "an earlier user message", ANSWER: "an assistant message", TURN: "a later user message"}
    for sentinel, name in names.items():
        if (count := text.count(sentinel)) != 1:
            how = "leaves out" if count == 0 else "repeats"
            raise TemplateError(f"{tokenizer.model}: no user turn can be cut: the chat template {how} {name}")
    places = [text.index(sentinel) for sentinel in names]
    if places != sorted(places):
        raise TemplateError(f"{tokenizer.model}: no user turn can be cut: the chat template reorders messages")
    rest, parts = text, []
    for sentinel in names:
        part, _, rest = rest.partition(sentinel)
        parts.append(part)
    return [*parts, rest]


def _header(tokenizer: Tokenizer, gap: str, closings: Sequence[str]) -> str:
    """The header in `gap`, which is what ended the turn before, then the header.

    A closing is what the template writes after a last turn. It may differ from what follows an earlier one
    (harmony's `<|return|>`, Phi's end of text), so the longest beginning that they share is taken.
    """
    for closing in closings:
        if closing and gap.startswith(closing):
            return gap.removeprefix(closing)
    pieces = tokenizer.pieces(gap)
    shared = (
        sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(pieces, tokenizer.pieces(closing), strict=False)))
        for closing in closings
    )
    return "".join(pieces[max(shared, default=0) :])


def _opening(tokenizer: Tokenizer, before: str, user: str) -> str:
    """What a bare user header needs before it: control tokens alone, or the beginning-of-sequence token."""
    if all(tokenizer.token_id(piece) is not None for piece in tokenizer.pieces(before)):
        return before
    bos = tokenizer.special_tokens.get("bos_token", "")
    # SmolLM2 names `<|im_start|>` its beginning of sequence, but there it is part of a header.
    return bos if bos and before.startswith(bos) and not user.startswith(bos) else ""


def _other_tags(tokenizer: Tokenizer, render: Callable[..., str], before: str, end_of_answer: str) -> Iterator[str]:
    """Control tokens that open a system or a tool message, where the template has such."""
    known = set(tokenizer.pieces(before))
    contexts = (
        ((plain("system", TURN), plain("user", FIRST)), ()),
        ((plain("user", FIRST), plain("assistant", ANSWER), plain("tool", TURN)), (end_of_answer,)),
    )
    for context, closings in contexts:
        try:
            gap = render(*context).partition(TURN)[0].rpartition(ANSWER)[2]
        except TemplateError:
            continue
        pieces = tokenizer.pieces(_header(tokenizer, gap, closings))
        yield from [p for p in pieces if tokenizer.token_id(p) is not None and p not in known][:1]


def _stops(tokenizer: Tokenizer, closing: str, tags: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Strings and tokens that end a user turn: what closes it, and the tags of other roles."""
    # A plain-text tag at the start of a line is one only there: "Assistant:" may stand in what a user writes.
    newline = "\n" if "\n" in closing[: len(closing) - len(closing.lstrip())] else ""
    strings: list[str] = []
    ids = set(tokenizer.eos_token_ids)
    for end in (closing.strip(), *(tag.strip() for tag in tags)):
        piece = next(iter(tokenizer.pieces(end)), "")
        index = tokenizer.token_id(piece)
        line = newline + piece.split("\n")[0].strip()
        if index is not None:
            ids.add(index)
        elif line.strip() and line not in strings:
            strings.append(line)
    return tuple(strings), tuple(sorted(ids))
