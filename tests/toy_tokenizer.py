"""A tokenizer of bytes and control tokens, written as a model's folder and loaded from it."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from selfplay.prompting.tokenizer import Tokenizer, load_tokenizer

NOW = datetime(2026, 3, 1)


def toy_tokenizer(
    folder: Path,
    source: str,
    tokens: str = "<s> </s> [INST] [/INST] <|user|> <|assistant|> <|end|>",
    plain: str = "",
    config: dict[str, object] | None = None,
    generation: str = "",
    joins_space: bool = False,
) -> Tokenizer:
    """Bytes and control tokens (`plain` ones not marked special), with `source` as chat template."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocab = {letter: index for index, letter in enumerate([*sorted(alphabet), *(["Ġa"] if joins_space else [])])}
    fast = FastTokenizer(models.BPE(vocab=vocab, merges=[("Ġ", "a")] if joins_space else []))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(token, special=True) for token in tokens.split()])
    fast.add_tokens(plain.split())
    folder.mkdir(parents=True, exist_ok=True)
    fast.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config or {"bos_token": "<s>", "eos_token": "</s>"}))
    ids = [fast.token_to_id(token) for token in generation.split()]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    (folder / "chat_template.jinja").write_text(source)
    return load_tokenizer(str(folder), now=NOW)
