"""The files of a model's folder that tell of its tokenizer and chat template, and how to get them.

Knows where Hugging Face keeps what; knows nothing of messages or prompts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfplay.errors import SelfplayError, UsageError
from selfplay.terminal import one_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer as FastTokenizer

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
)
SPECIAL_TOKEN_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
CONTEXT_LENGTH_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")
EMBEDDED = "give its folder, or use the embedded model: `selfplay models get smollm2-135m`"


def download(repo: str, revision: str | None, instead: str = EMBEDDED) -> Path:
    """The tokenizer's files of a Hugging Face model, from the cache where they are there.

    Args:
        instead: What else the user may do, where they cannot be had.

    Raises:
        UsageError: There is no such model, or it cannot be reached.
    """
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(FILES)))
    except HFValidationError:
        raise UsageError(f"{repo!r} is neither a folder nor a Hugging Face id such as Qwen/Qwen3-0.6B") from None
    except (OSError, ValueError, httpx.HTTPError) as error:  # the Hub client's own errors are all one of these
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        at = f" at revision {revision}" if revision else ""
        raise UsageError(
            f"cannot get {repo}{at} ({type(error).__name__}: {reason[:160]}); fetch it with `hf download {repo}`, "
            f"{instead}"
        ) from None


def load_fast(folder: Path, model: str) -> FastTokenizer:
    """The tokenizer of `tokenizer.json`, or one that transformers, where installed, converts from older files.

    Raises:
        SelfplayError: Neither can be read.
    """
    from tokenizers import Tokenizer as FastTokenizer

    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            return FastTokenizer.from_file(str(path))
        except Exception as error:  # the Rust side raises bare Exception
            raise SelfplayError(f"{model}: tokenizer.json cannot be read ({one_line(error, 200)})") from None
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise SelfplayError(
            f"{model}: no tokenizer.json in {folder}; `pip install 'selfplay-turns[local]'` can convert other formats"
        ) from None
    try:
        slow = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        backend: FastTokenizer = slow.backend_tokenizer
    except Exception as error:  # whatever the files made it raise
        reason = one_line(error, 200)
        raise SelfplayError(f"{model}: no tokenizer.json, and transformers cannot make one ({reason})") from None
    return backend


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; {} where there is no such file or it holds something else."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SelfplayError(f"{path}: not readable as JSON ({error}); fetch the model again") from None
    return value if isinstance(value, dict) else {}


def special_tokens(*sources: dict[str, Any]) -> dict[str, str]:
    """`bos_token`, `eos_token` … by name; the first source that names one counts."""
    tokens: dict[str, str] = {}
    for name in SPECIAL_TOKEN_NAMES:
        for source in sources:
            value = source.get(name)
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str):
                tokens.setdefault(name, text)
    return tokens


def chat_template(folder: Path, config: dict[str, Any]) -> str:
    """The Jinja text, wherever the model keeps it; of several named ones the default; "" if there is none."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SelfplayError(f"{path}: not readable as text ({error}); fetch the model again") from None
    template = config.get("chat_template") or read_json(folder / "chat_template.json").get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default") or next(iter(named.values()), None)
    return template if isinstance(template, str) else ""


def context_length(config: dict[str, Any]) -> int | None:
    """Tokens the model was made for, from its `config.json`."""
    text_config = config.get("text_config")
    for source in (config, text_config if isinstance(text_config, dict) else {}):
        for key in CONTEXT_LENGTH_KEYS:
            if isinstance(source.get(key), int):
                return int(source[key])
    return None
