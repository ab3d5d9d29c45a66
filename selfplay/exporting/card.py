"""The dataset card: README.md with YAML header, made of what was counted, and of nothing that was not.

Names that came with models and data stand as code: none of them can be markup, a link or a cell of its own.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from selfplay import __version__
from selfplay.errors import UsageError
from selfplay.exporting import figures
from selfplay.exporting.figures import Figures
from selfplay.inputs.source import content_hash
from selfplay.judging import file_hash
from selfplay.results import Results
from selfplay.terminal import one_line

SAYS = {
    "prompt-completion": "a judged user turn after what came before it; roles flipped, for training a user simulator",
    "messages": "dialogues whose user turns are good; roles flipped, for training a user simulator",
    "assistant": "dialogues whose user turns are good, roles as they are, for training the assistant",
    "dpo": "pairs of a better and a worse user turn, roles flipped",
    "kto": "single user turns, label true for good ones and false for those with a fault; roles flipped",
    "reward": "all judged user turns with a score from 0 to 1; roles flipped",
    "openai": "dialogues as OpenAI's fine-tuning rows, as in messages",
    "sharegpt": "dialogues as lists of from and value, as in messages",
}
SAYS_OF_ASSISTANT = {
    "prompt-completion": "an answer to a judged user turn after what came before it, for training the assistant",
    "messages": SAYS["assistant"],
}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10**7, "1M<n<10M"))
LICENSES = frozenset(
    [
        "afl-3.0",
        "apache-2.0",
        "artistic-2.0",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsl-1.0",
        "c-uda",
        "cc",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "cc-by-nd-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc0-1.0",
        "cdla-permissive-1.0",
        "cdla-permissive-2.0",
        "cdla-sharing-1.0",
        "gemma",
        "gpl",
        "gpl-2.0",
        "gpl-3.0",
        "lgpl",
        "lgpl-2.1",
        "lgpl-3.0",
        "llama2",
        "llama3",
        "llama3.1",
        "llama3.2",
        "llama3.3",
        "mit",
        "mpl-2.0",
        "odbl",
        "odc-by",
        "openrail",
        "pddl",
        "unlicense",
        "wtfpl",
        "zlib",
        "agpl-3.0",
    ]
)
"""Those that the Hub's header knows, as far as data and models are likely to name them."""
SHIPPED_RULES = importlib.resources.files("filters") / "default_rules.json"
SOURCES = 20
"""Sources that are shown."""
CELL = 200
"""Characters of a name that are shown."""


def card(
    results: Results,
    rows: Mapping[str, Mapping[str, int]],
    suffix: str,
    source_license: str | None,
    asked: Mapping[str, Any],
) -> str:
    """The text of README.md.

    Args:
        rows: By format and split, as they were written to `data/<format>/<split>.<suffix>`.
        source_license: Of conversations whose rows name none.
        asked: What the export was asked for.

    Raises:
        UsageError: The results are damaged.
    """
    found = figures.count(results)
    licenses = _licenses(found, source_license)
    blocks = [
        _header(rows, suffix, licenses),
        f"# User turns, made with selfplay {__version__}",
        _first(results, found),
        *_section("What is in it", _rows(rows, asked)),
        *_section("How it was made", _made(results, found, asked)),
        *_section("Defects found by the rules", _defects(found)),
        *_section("Estimated share of genuine turns", _estimated(results)),
        *_section("Rules that fired, and how often they are right", _rules(results, found)),
        *_section("Licences of the sources", _sources(found, source_license)),
        *_section("Limits", _limits(results, found)),
    ]
    return "\n\n".join(blocks) + "\n"


def code(text: object) -> str:
    """Text from outside as Markdown that shows it as it is: a code span, in which nothing is markup, link or HTML."""
    shown = one_line(text, CELL)
    if not shown:
        return "(empty)"
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    # A bar would end the cell of a table, in a code span too.
    return f"{fence}{pad}{shown}{pad}{fence}".replace("|", "\\|")


def _header(rows: Mapping[str, Mapping[str, int]], suffix: str, licenses: Mapping[str | None, int]) -> str:
    from huggingface_hub import DatasetCardData

    configs: list[dict[str, Any]] = [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": f"data/{name}/{split}.{suffix}"} for split in counts],
        }
        for name, counts in rows.items()
        if counts
    ]
    configs[0]["default"] = True
    most = max(sum(counts.values()) for counts in rows.values())
    named = [name for name in licenses if name is not None]
    told: dict[str, Any] = {"license": "unknown"}
    if named:
        told = {"license": "other"}
        if len(licenses) == 1:
            slug = named[0].lower().replace(" ", "-")
            told = {"license": slug} if slug in LICENSES else {"license": "other", "license_name": _slug(named[0])}
    data = DatasetCardData(
        **told,
        task_categories=["text-generation"],
        tags=["user-simulation", "synthetic", "selfplay"],
        size_categories=[next((name for bound, name in SIZES if most < bound), "n>10M")],
        configs=configs,
    )
    return f"---\n{data.to_yaml()}\n---"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-.")[:60] or "other"


def _licenses(found: Figures, source_license: str | None) -> dict[str | None, int]:
    """Conversations by licence, most common first."""
    told: dict[str | None, int] = {}
    for (_, name), count in found.origins.most_common():
        known = name if name is not None else source_license
        told[known] = told.get(known, 0) + count
    return told


def _first(results: Results, found: Figures) -> str:
    did = {
        "run": "sampled user turns after answers of an assistant, filtered them by rules and chose the best grounded",
        "play": "played dialogues: an assistant answers, user turns are sampled, filtered by rules, the best goes on",
        "clean": "judged the user turns of existing conversations by rules",
    }[results.verb]
    models = ", ".join(code(name) for name, _ in found.models.most_common(8)) or "not stated"
    return (
        f"`selfplay {results.verb}` {did}: {found.turns:,} turns at {found.sites:,} places in {found.conversations:,} "
        f"conversations. User turns written by: {models}."
    )


def _rows(rows: Mapping[str, Mapping[str, int]], asked: Mapping[str, Any]) -> Iterator[str]:
    says = SAYS | SAYS_OF_ASSISTANT if asked.get("side") == "assistant" else SAYS
    splits = [split for split in ("train", "validation") if any(split in counts for counts in rows.values())]
    table = [
        [name, *(f"{counts[split]:,}" if split in counts else "" for split in splits), says[name]]
        for name, counts in rows.items()
        if counts
    ]
    yield _table(["config", *splits, "rows are"], table, figures_from=1, figures_to=1 + len(splits))
    if empty := [name for name, counts in rows.items() if not counts]:
        yield f"No rows came out for: {', '.join(empty)}."
    if len(splits) > 1:
        yield "A conversation is in one split only."


def _made(results: Results, found: Figures, asked: Mapping[str, Any]) -> Iterator[str]:
    settings = figures.settings(results)
    yield _table(["setting", "value"], [[code(name), code(value)] for name, value in settings.items()])
    told = ", ".join(f"{name.replace('_', ' ')} {code(value)}" for name, value in asked.items() if name != "formats")
    yield f"The files were then written by `selfplay export`{f' ({told})' if told else ''}."


def _defects(found: Figures) -> Iterator[str]:
    good = sum(after for _, after in found.labels.values())
    table = [
        [
            "no fault found" if label == "follow_up" else code(label),
            _share(before, found.turns),
            _share(after, good),
        ]
        for label, (before, after) in sorted(found.labels.items(), key=lambda item: -item[1][0])
    ]
    yield _table(["label", f"before, {found.turns:,} turns", f"after, {good:,} turns"], table, figures_from=1)
    yield (
        "After: turns that were chosen or kept and count as good. The labels are those of the same rules before and "
        "after, so the right column says what was let through and not how often the rules are wrong."
    )


def _estimated(results: Results) -> Iterator[str]:
    told = []
    for name, value in figures.estimates(results).items():
        if value.get("mean") is None:
            told.append(f"- {code(name)}: not estimated ({code(value.get('why') or 'no reason recorded')})")
            continue
        mark = f", extrapolated: {code(value['why'])}" if value.get("extrapolated") else ""
        told.append(
            f"- {code(name)}: {value['mean']:.1%} [{value['low']:.1%}, {value['high']:.1%}], "
            f"of {value['turns']:,} turns{mark}"
        )
    yield "\n".join(told) or "Not estimated."
    if told:
        yield (
            "Mean of a calibrated probability that a judge would call the turn a genuine follow-up, with a 95 % "
            "interval; an estimate, not a count."
        )


def _rules(results: Results, found: Figures) -> Iterator[str]:
    if not found.fired:
        yield "None."
        return
    known = _measured(results)
    if known is None:
        yield "The rule file is not at hand with the content that was used, so its measured precision is not stated."
    sources = sorted({source for rule in (known or {}).values() for source in rule["precision"]})
    table = []
    for (rule_set, name, label), count in found.fired.most_common():
        rule = (known or {}).get((rule_set, name))
        cells = [_precision(rule["precision"].get(source) if rule else None) for source in sources]
        table.append([code(name), code(label), code(rule_set), f"{count:,}", *cells])
    yield _table(["rule", "label", "set", "fired here", *(f"precision, {code(s)} turns" for s in sources)], table, 3)
    if sources:
        yield "Precision on judged turns kept out of learning: right of those decided [95 % interval]."


def _measured(results: Results) -> dict[tuple[str, str], Mapping[str, Any]] | None:
    """The rules with their figures by set and name, where the rule file is the one that was used."""
    from selfplay.showing.rules import facts

    path, used = figures.rules_used(results)
    try:
        if used not in (file_hash(path, "filters", "default_rules.json"), content_hash(path or str(SHIPPED_RULES))):
            return None
        told = facts(path)
    except (UsageError, OSError):
        return None
    return {(name, rule["name"]): rule for name, of in told["sets"].items() for rule in of["rules"]}


def _precision(figure: Mapping[str, Any] | None) -> str:
    if not figure or not figure["decided"]:
        return "not measured"
    return (
        f"{figure['right'] / figure['decided']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}], "
        f"{figure['right']:,} of {figure['decided']:,}"
    )


def _sources(found: Figures, source_license: str | None) -> Iterator[str]:
    given = f"not stated by the rows, given as {code(source_license)}" if source_license else "not stated"
    table = [
        [code(source) if source else "not stated", code(license) if license else given, f"{count:,}"]
        for (source, license), count in found.origins.most_common(SOURCES)
    ]
    yield _table(["source", "licence", "conversations"], table, 2)
    if (more := len(found.origins) - SOURCES) > 0:
        yield f"And {more:,} more."
    yield "What the licences of the models say about their output was not looked at."


def _limits(results: Results, found: Figures) -> Iterator[str]:
    from selfplay.showing.rules import facts

    told = [
        "That no rule fired does not make a turn genuine; labels are the rules' and not people's.",
        "Chosen turns are those that learned weights rank first, so what these favour is more common here than among "
        "all turns.",
    ]
    if results.verb == "clean":
        told[1] = "Rules learned on sampled turns of small models misjudge some turns of people and of large models."
    path, _ = figures.rules_used(results)
    if _measured(results) is not None:
        training = facts(path)["training"]
        if training.get("turns"):
            sources = ", ".join(f"{count:,} {code(name)}" for name, count in training.get("sources", {}).items())
            who = "" if path else ", judged by a large language model and not by people"
            told.append(f"The rules were learned from {training['turns']:,} judged turns ({sources}){who}.")
    whys = {value["why"] for value in figures.estimates(results).values() if value.get("extrapolated")}
    told += [f"The estimate goes beyond what was calibrated: {code(why)}." for why in sorted(whys)]
    if any(name.endswith("primed") and value == "True" for name, value in figures.settings(results).items()):
        told.append("The user turns were asked for by instruction (primed).")
    told.append("Nothing was checked for personal data, for harmful content or for truth.")
    yield "\n".join(f"- {line}" for line in told)


def _section(title: str, blocks: Iterable[str]) -> list[str]:
    return [f"## {title}", *(block for block in blocks if block)]


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], figures_from: int | None = None, figures_to: int | None = None
) -> str:
    """A Markdown table; columns from `figures_from` up to `figures_to` stand to the right."""
    right = range(len(head))[figures_from:figures_to] if figures_from is not None else range(0)
    rule = ["--:" if place in right else "---" for place in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%} ({count:,})" if total else "0"
