"""The dataset card: README.md with YAML header, made of what was counted, and of nothing that was not.

Names that came with models and data stand as code: none of them can be markup, a link or a cell of its own.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from selfplay import __version__
from selfplay.errors import UsageError
from selfplay.exporting import figures
from selfplay.exporting.card_header import header
from selfplay.exporting.figures import Figures
from selfplay.exporting.markdown import code, table
from selfplay.inputs.source import content_hash
from selfplay.judging import file_hash
from selfplay.results import Results

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
SHIPPED_RULES = importlib.resources.files("filters") / "default_rules.json"
SOURCES = 20
"""Sources that are shown."""


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
    blocks = [
        header(rows, suffix, found, source_license),
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
    cells = [
        [name, *(f"{counts[split]:,}" if split in counts else "" for split in splits), says[name]]
        for name, counts in rows.items()
        if counts
    ]
    yield table(["config", *splits, "rows are"], cells, figures_from=1, figures_to=1 + len(splits))
    if empty := [name for name, counts in rows.items() if not counts]:
        yield f"No rows came out for: {', '.join(empty)}."
    if len(splits) > 1:
        yield "A conversation is in one split only."


def _made(results: Results, found: Figures, asked: Mapping[str, Any]) -> Iterator[str]:
    settings = figures.settings(results)
    yield table(["setting", "value"], [[code(name), code(value)] for name, value in settings.items()])
    told = ", ".join(f"{name.replace('_', ' ')} {code(value)}" for name, value in asked.items() if name != "formats")
    yield f"The files were then written by `selfplay export`{f' ({told})' if told else ''}."


def _defects(found: Figures) -> Iterator[str]:
    good = sum(after for _, after in found.labels.values())
    cells = [
        [
            "no fault found" if label == "follow_up" else code(label),
            _share(before, found.turns),
            _share(after, good),
        ]
        for label, (before, after) in sorted(found.labels.items(), key=lambda item: -item[1][0])
    ]
    yield table(["label", f"before, {found.turns:,} turns", f"after, {good:,} turns"], cells, figures_from=1)
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
    lines = []
    for (rule_set, name, label), count in found.fired.most_common():
        rule = (known or {}).get((rule_set, name))
        cells = [_precision(rule["precision"].get(source) if rule else None) for source in sources]
        lines.append([code(name), code(label), code(rule_set), f"{count:,}", *cells])
    yield table(["rule", "label", "set", "fired here", *(f"precision, {code(s)} turns" for s in sources)], lines, 3)
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
    cells = [
        [code(source) if source else "not stated", code(license) if license else given, f"{count:,}"]
        for (source, license), count in found.origins.most_common(SOURCES)
    ]
    yield table(["source", "licence", "conversations"], cells, 2)
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


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%} ({count:,})" if total else "0"
