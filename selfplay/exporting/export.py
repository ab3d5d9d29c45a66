"""`selfplay export` as a function: results in, a folder in the forms asked for out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from selfplay import __version__
from selfplay.errors import UsageError
from selfplay.exporting import card, hub
from selfplay.exporting.folder import CARD, replaced
from selfplay.exporting.formats import FORMATS, Options
from selfplay.exporting.writing import write_splits
from selfplay.results import Results, open_results

HUB = "hub"
FITTING: Mapping[str, tuple[str, ...]] = {
    "run": ("prompt-completion", "messages", "dpo", "kto", "reward"),
    "play": ("prompt-completion", "messages", "assistant", "dpo", "kto", "reward"),
    "clean": ("messages", "prompt-completion", "assistant", "kto", "reward"),
}
"""What a dataset folder holds unless it is told; of cleaned data `dpo` too, where it has replacements."""


@dataclass(frozen=True, slots=True)
class Export:
    """What is written, and how.

    Attributes:
        formats: Of `FORMATS`; with `hub` also a card, and alone all formats that fit.
        file_type: `jsonl` or `parquet`; None is the latter in a dataset folder.
        validation: The share of conversations that is kept apart.
        source_license: Of the conversations, where their rows don't say.
        push_to_hub: Repository to upload the folder to.
    """

    formats: tuple[str, ...] = ("prompt-completion",)
    file_type: str | None = None
    validation: float = 0.0
    seed: int = 0
    rows: Options = field(default_factory=Options)
    source_license: str | None = None
    push_to_hub: str | None = None
    public: bool = False
    overwrite: bool = False


def export(folder: str | Path, out: str | Path, asked: Export | None = None) -> dict[str, dict[str, int]]:
    """Writes the finished results in `folder` to the folder `out`.

    Returns:
        Rows by format and split.

    Raises:
        UsageError: No finished results, a format that does not fit them, nothing to export, an `out` that is not ours.
        SelfplayError: The upload failed; the folder is there.
    """
    asked = asked or Export()
    out = Path(out)
    results = open_results(folder)
    if results.verb == "run" and results.record.get("select") is None:
        raise UsageError(
            f"{folder} holds samples that nobody judged; `selfplay run` with the same options goes on from there"
        )
    as_dataset = HUB in asked.formats or asked.push_to_hub is not None
    formats = _formats(results, asked, as_dataset)
    if asked.push_to_hub is not None:
        hub.check(asked.push_to_hub)
    suffix = asked.file_type or ("parquet" if as_dataset else "jsonl")
    written: dict[str, dict[str, int]] = {}
    with replaced(out, Path(folder), asked.overwrite) as (place, record):
        for name in formats:
            inside = Path("data", name) if as_dataset else Path(name) if len(formats) > 1 else Path()
            counts = write_splits(
                FORMATS[name](results, asked.rows),
                lambda split, inside=inside: place / inside / f"{split}.{suffix}",  # type: ignore[misc]
                asked.validation,
                asked.seed,
            )
            written[name] = counts
        if not any(written.values()):
            raise UsageError(f"{folder}: there is no turn to export as {', '.join(formats)}; nothing was written")
        record |= {
            "source": Path(folder).name,
            "selfplay": __version__,
            "settings": settings(asked),
            "rows": written,
        }
        if as_dataset:
            text = card.card(results, written, suffix, asked.source_license, settings(asked))
            (place / CARD).write_text(text, encoding="utf-8")
    if asked.push_to_hub is not None:
        data = [f"data/{name}/{split}.{suffix}" for name, counts in written.items() for split in counts]
        hub.push(out, asked.push_to_hub, [CARD, *data], asked.public)
    return written


def settings(asked: Export) -> dict[str, Any]:
    """What was asked for that decides the files; JSON types, and only what differs from the defaults."""
    plain, usual = asdict(asked), asdict(Export())
    told = {name: value for name, value in plain.items() if value != usual[name] and name != "rows"}
    rows = {name: value for name, value in plain["rows"].items() if value != usual["rows"][name]}
    hidden = ("overwrite", "push_to_hub", "public")
    return {name: value for name, value in (told | rows).items() if name not in hidden}


def _formats(results: Results, asked: Export, as_dataset: bool) -> Sequence[str]:
    """Those to write.

    Raises:
        UsageError: One that there is not.
    """
    for name in asked.formats:
        if name != HUB and name not in FORMATS:
            raise UsageError(f"no format {name!r}; there are {', '.join([*FORMATS, HUB])}")
    named = tuple(dict.fromkeys(name for name in asked.formats if name != HUB))
    if named or not as_dataset:
        return named
    replacements = ("dpo",) if results.verb == "clean" and results.runs() else ()
    return (*FITTING[results.verb], *replacements)


def lines(out: Path, written: Mapping[str, Mapping[str, int]], pushed: str | None) -> list[str]:
    """What was done, for a person."""
    width = max(map(len, written))
    told = []
    for name, counts in written.items():
        rows = ", ".join(f"{split} {count:,}" for split, count in counts.items()) or "no rows, no file"
        told.append(f"{name:{width}}  {rows}")
    return [*told, f"written to {out}", *([f"uploaded to https://huggingface.co/datasets/{pushed}"] if pushed else [])]
