"""A model's tokenizer and chat template, without transformers.

Knows tokens and the special-token strings. Files are read in `model_files`, rendering is `jinja`, cutting prompts is
`templates`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfplay.core import Message
from selfplay.errors import SelfplayError, UsageError
from selfplay.prompting import model_files
from selfplay.prompting.jinja import TemplateRenderer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as FastTokenizer


class Tokenizer:
    """Text to token ids and back, and messages to text, as the model's own files say.

    Attributes:
        model: What was asked for: a folder or a Hugging Face id.
        revision: Commit on Hugging Face that the files are of; None for a folder.
        chat_template: The Jinja text; "" where the model has none.
        template_hash: First 16 hex digits of the SHA-256 of `chat_template`.
        context_length: Tokens the model was made for; None where its files do not tell.
        special_tokens: `bos_token`, `eos_token` … as strings, those that the model names.
        eos_token_ids: Tokens that end a generation according to the model's files, ascending.
        date: The moment templates see as "now"; None where the template does not ask. A run that is to be
            repeated hands it back as `load_tokenizer(..., now=...)`.
    """

    def __init__(self, folder: Path, model: str, revision: str | None = None, now: datetime | None = None) -> None:
        self.model = model
        self.revision = revision
        config = model_files.read_json(folder / "tokenizer_config.json")
        self.special_tokens = model_files.special_tokens(
            config, model_files.read_json(folder / "special_tokens_map.json")
        )
        self.chat_template = model_files.chat_template(folder, config)
        self.template_hash = hashlib.sha256(self.chat_template.encode()).hexdigest()[:16]
        model_config = model_files.read_json(folder / "config.json")
        self.context_length = model_files.context_length(model_config)
        self._fast = model_files.load_fast(folder, model)
        self.eos_token_ids = self._eos_token_ids(model_config, model_files.read_json(folder / "generation_config.json"))
        renderer = TemplateRenderer(self.chat_template, model, now) if self.chat_template else None
        self._renderer = renderer
        self.date = renderer.now if renderer and "strftime_now" in self.chat_template else None

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Token ids of `text`; nothing is put before or after it.

        Args:
            special: Whether control tokens such as `<|im_end|>` in the text become that token. False takes them as
                plain characters: the way for text from outside.

        Raises:
            SelfplayError: The text holds half of a surrogate pair and so is not Unicode.
        """
        fast = self._fast if special else self._plain
        try:
            return list(fast.encode(text, add_special_tokens=False).ids)
        except (UnicodeEncodeError, TypeError):
            raise SelfplayError("the text holds a lone surrogate, which is no Unicode character") from None

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` as it stands after other text, special tokens kept and no whitespace tidied.

        SentencePiece decoders drop the space of a first word; behind a header it belongs to the text, so an
        anchor token is decoded along and cut off.
        """
        if not ids:
            return ""
        anchor, length = self._anchor
        return str(self._fast.decode([*anchor, *ids], skip_special_tokens=False))[length:]

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """What the model's chat template makes of `messages`.

        Raises:
            TemplateError: The model has no chat template, or the template refuses these messages.
        """
        if self._renderer is None:
            raise SelfplayError(f"{self.model}: no chat template in its files; use an instruction-tuned model")
        return self._renderer.render(messages, self.special_tokens, add_generation_prompt)

    def token_id(self, text: str) -> int | None:
        """The id of an added (control) token by its exact text; None if there is no such token."""
        return self._added_tokens.get(text)

    def pieces(self, text: str) -> list[str]:
        """`text` cut at control tokens: the tokens, and what stands between them, in order; nothing is lost."""
        return [piece for piece in self._control.split(text) if piece]

    @cached_property
    def _added_tokens(self) -> dict[str, int]:
        added = self._fast.get_added_tokens_decoder()
        return {token.content: index for index, token in added.items() if token.content.strip()}

    @cached_property
    def _control(self) -> re.Pattern[str]:
        longest_first = sorted(self._added_tokens, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else "(?!)")

    @cached_property
    def _plain(self) -> FastTokenizer:
        """The same tokenizer, for which control tokens are plain characters."""
        from tokenizers import Tokenizer as FastTokenizer

        state = json.loads(self._fast.to_str())
        for token in state.get("added_tokens", []):
            token["special"] = True  # `encode_special_tokens` overlooks added tokens that are not marked so
        plain = FastTokenizer.from_str(json.dumps(state))
        plain.encode_special_tokens = True
        return plain

    @cached_property
    def _anchor(self) -> tuple[list[int], int]:
        """Tokens to decode along, and the length of their text."""
        word = self._fast.encode("a", add_special_tokens=False).ids
        return word, len(self._fast.decode(word, skip_special_tokens=False))

    def _eos_token_ids(self, config: dict[str, Any], generation: dict[str, Any]) -> tuple[int, ...]:
        found: set[int] = set()
        text_config = config.get("text_config")
        for source in (generation, config, text_config if isinstance(text_config, dict) else {}):
            value = source.get("eos_token_id")
            found.update(i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int))
        eos = self.special_tokens.get("eos_token")
        index = self._fast.token_to_id(eos) if eos else None
        if index is not None:
            found.add(index)
        return tuple(sorted(found))


def load_tokenizer(model: str, revision: str | None = None, now: datetime | None = None) -> Tokenizer:
    """Reads a model's tokenizer from a local folder, an embedded name or a Hugging Face id.

    Args:
        now: What the template's `strftime_now` shows; the present if None.

    Raises:
        UsageError: No such model, or none that can be reached.
        SelfplayError: The model's files are no tokenizer we can read.
    """
    if os.path.isdir(model):
        return Tokenizer(Path(model), model, None, now)
    from selfplay.models import resolve

    place = resolve(model)
    if os.path.isdir(place):
        return Tokenizer(Path(place), model, None, now)
    if place.startswith((".", "/", "~")):
        raise UsageError(f"{model}: no such folder; give a model folder, a Hugging Face id or smollm2-135m")
    folder = model_files.download(place, revision)
    commit = folder.name if folder.parent.name == "snapshots" else revision
    return Tokenizer(folder, model, commit, now)
