"""`selfplay rules show` and `features`: a rule file as facts, and as what a person reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from filters.features import FEATURES
from filters.labels import Label
from filters.wording import sentence
from selfplay.errors import UsageError
from selfplay.learned import load_rules
from selfplay.pages import Page
from selfplay.terminal import printable

if TYPE_CHECKING:
    from filters.rule import Precision, Rule
    from filters.rules import RuleSet


def facts(path: str | None, name: str | None = None) -> dict[str, Any]:
    """The rules with their sentences and figures; JSON types only.

    Args:
        path: Rule file; the shipped one when None.
        name: Only this set.

    Raises:
        UsageError: The file cannot be used.
    """
    rules = load_rules(path)
    sets = rules.sets
    if name is not None and name not in sets:
        raise UsageError(f"{path or 'the shipped rules'}: no set {name!r}; there are {', '.join(sets)}")
    return {
        "rules": path or "shipped",
        "training": dict(rules.training),
        "models": dict(rules.models),
        "sets": {
            each: {
                "tiers": sorted(rules_of.tiers, key=("text", "embedding", "state", "likelihood").index),
                "held_out": dict(rules_of.held_out),
                "rules": [_rule(rule, rules_of) for rule in rules_of.rules],
            }
            for each, rules_of in sets.items()
            if name in (None, each)
        },
    }


def _rule(rule: Rule, rules_of: RuleSet) -> dict[str, Any]:
    return {
        "name": rule.name,
        "label": rule.label.value,
        "sentence": sentence(rule),
        "tests": [[test.feature, test.op, test.value] for test in rule.tests],
        "enabled": rule.enabled,
        "support": rule.support,
        "precision": {
            source: _precision(counts, rules_of.held_out.get(source, {}).get("turns"))
            for source, counts in rule.precision.items()
        },
        "certified": rule.certified.to_json() if rule.certified else None,
    }


def _precision(counts: Precision, turns: int | None) -> dict[str, Any]:
    return {
        "decided": counts.fired,
        "right": counts.right,
        "genuine": counts.genuine,
        "low": counts.low,
        "high": counts.high,
        "share_decided": counts.fired / turns if turns else None,
    }


def show(path: str | None, name: str | None) -> None:
    """Prints the rules as sentences."""
    told = facts(path, name)
    page = Page()
    for line in _head(told):
        page.line(line)
    for each, rules_of in told["sets"].items():
        page.line()
        page.line(Text(f"{each}: {len(rules_of['rules'])} rules, needs {', '.join(rules_of['tiers'])}", style="bold"))
        page.line("The first rule that fires decides; a turn on which none fires passes, as follow_up.")
        page.line("Figures are of turns kept out of learning: right of those decided [95 % interval].")
        for line in _passed(rules_of["held_out"]):
            page.line(line)
        for place, rule in enumerate(rules_of["rules"], 1):
            page.line()
            mark = "" if rule["enabled"] else "  (switched off)"
            page.line(Text.assemble((f"{place:2}. {printable(rule['name'])}", "bold"), (mark, "yellow")))
            page.line(Text(rule["sentence"]), indent=4)
            for line in _figures(rule):
                page.line(Text(line, style="dim"), indent=4)


def _head(told: Mapping[str, Any]) -> Iterator[str]:
    training, models = told["training"], told["models"]
    yield f"rules: {printable(told['rules'])}"
    if training.get("turns"):
        sources = ", ".join(f"{count:,} {printable(name)}" for name, count in training.get("sources", {}).items())
        yield (
            f"learned from {training['turns']:,} judged turns of {training.get('conversations', 0):,} conversations "
            f"({sources}); data {str(training.get('sha256', '?'))[:12]}"
        )
    else:
        yield "learned from: not recorded"
    for part, model in models.items():
        pinned = f" ({str(model['revision'])[:12]})" if model.get("revision") else ""
        yield f"{part}: {printable(str(model.get('model')))}{pinned}"


def _passed(held_out: Mapping[str, Any]) -> Iterator[str]:
    """How good what passes was, by source."""
    for source, figures in held_out.items():
        passed = figures.get("labels", {}).get(Label.FOLLOW_UP.value)
        if passed:
            told = ", ".join(f"{name} {interval(passed[name])}" for name in ("precision", "recall", "f1"))
            yield f"passing, {source}: {told} ({figures['passed']:,} of {figures['turns']:,} turns passed)"


def interval(figure: Sequence[float]) -> str:
    """A share with its interval."""
    value, low, high = map(decimal, figure)
    return f"{value} [{low}, {high}]"


def _figures(rule: Mapping[str, Any]) -> Iterator[str]:
    width = max(map(len, rule["precision"]), default=0)
    for source, counts in rule["precision"].items():
        n = counts["decided"]
        told = "never decided" if not n else (
            f"{decimal(counts['right'] / n)} [{decimal(counts['low'])}, {decimal(counts['high'])}]  "
            f"{counts['right']:,} of {n:,}"
        )  # fmt: skip
        share = counts["share_decided"]
        yield f"{source:{width}}  {told}" + (f"; decides {share:.1%} of such turns" if n and share is not None else "")
    support = "added by hand" if rule["support"] is None else f"support {rule['support']:,}"
    yield f"{support}; {_certificate(rule)}"


def _certificate(rule: Mapping[str, Any]) -> str:
    found = rule["certified"]
    if found is None:
        n = sum(counts["decided"] for counts in rule["precision"].values())
        return f"not certified (n={n:,})"
    if found["bound"] < found["precision"]:
        return f"not certified (n={found['n']:,})"
    return f"certified ≥ {decimal(found['precision'])} (n={found['n']:,}, at least {decimal(found['bound'])})"


def decimal(share: float) -> str:
    """A share without the zero before the point: `.93`, `1.00`."""
    return f"{share:.2f}".removeprefix("0")


def file_text(path: str | None) -> str:
    """The rule file as it is, after a look whether it can be used.

    Raises:
        UsageError: It cannot.
    """
    load_rules(path)
    source = files("filters") / "default_rules.json" if path is None else Path(path)
    return source.read_text(encoding="utf-8")


def show_features() -> None:
    """Prints what a rule can test."""
    page = Page()
    width = max(map(len, FEATURES))
    tier = None
    for feature in FEATURES.values():
        if feature.tier != tier:
            tier = feature.tier
            page.line(Text(f"{tier}", style="bold"))
        low, high = (f"{value:g}".replace("inf", "…") for value in (feature.low, feature.high))
        page.line(
            f"{feature.name:{width}}  {low}..{high}  {feature.says} ({feature.catches})", indent=2, hang=width + 8
        )
