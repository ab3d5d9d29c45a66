"""What `selfplay train` prints: how good the rules it learned are, and what bounds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from filters.certify import least_proof
from filters.labels import Label
from selfplay.showing.figures import console_for_figures, print_line, table_of
from selfplay.showing.rules import decimal, interval
from selfplay.terminal import printable

if TYPE_CHECKING:
    from filters.rules import Rules, RuleSet

GENUINE = Label.FOLLOW_UP.value
MEASURES = ("precision", "recall", "f1")


def show(rules: Rules, ceilings: Mapping[str, Mapping[str, Any]], console: Console | None = None) -> None:
    """Prints, for each set, its certificates, figures by label and confusion, p_genuine, and the ceiling.

    Args:
        ceilings: What `filters.learning.ceiling.ceiling` found, by set; empty where it was not asked for.
    """
    console = console_for_figures() if console is None else console
    training = rules.training
    sources = ", ".join(f"{n:,} {escape(printable(str(source)))}" for source, n in training["sources"].items())
    print_line(
        console, f"{training['turns']:,} judged turns of {training['conversations']:,} conversations ({sources})"
    )
    print_line(
        console,
        f"{training['apart']:,} conversations kept apart to certify rules; the others in {training['folds']} folds",
    )
    for name, rule_set in rules.sets.items():
        print_line(console)
        print_line(console, f"[bold]{name}[/]: " + ", ".join(_counted(rule_set)))
        for source, found in rule_set.held_out.items():
            print_line(console)
            _labels(console, source, found)
            _confusion(console, found["confusion"])
        print_line(console)
        for line in (*_p_genuine(rule_set), *_ceiling(rule_set, ceilings.get(name, {}))):
            print_line(console, line)


def _counted(rule_set: RuleSet) -> Iterator[str]:
    turns = sum(found["turns"] for found in rule_set.held_out.values())
    yield f"{len(rule_set.rules)} rules learned from {turns:,} turns"
    proofs = [rule.certified for rule in rule_set.rules if rule.certified is not None]
    if proofs:
        enough = sum(proof.n >= least_proof(proof.precision) for proof in proofs)
        yield f"{sum(proof.holds for proof in proofs)} certified"
        yield f"{enough} caught enough of the turns apart for that"
    else:
        yield "none certified (nothing was kept apart)"


def _labels(console: Console, source: str, found: Mapping[str, Any]) -> None:
    title = f"{escape(printable(source))}: {found['turns']:,} turns of {found['conversations']:,} conversations"
    print_line(console, title)
    table = table_of(console, "label", "n", "precision", "recall", "F1")
    for label, figures in found["labels"].items():
        table.add_row(label, f"{figures['n']:,}", *(_figure(figures[measure]) for measure in MEASURES))
    table.add_row("macro-F1", f"{found['turns']:,}", "", "", _figure(found["macro_f1"]))
    console.print(table)


def _confusion(console: Console, confusion: Mapping[str, Mapping[str, int]]) -> None:
    table = table_of(console, "judged \\ labelled", *(_short(label.value) for label in Label))
    for label, given in confusion.items():
        table.add_row(label, *(str(given[other.value]) if given.get(other.value) else "·" for other in Label))
    console.print(table)


def _short(label: str) -> str:
    return label[:4].rstrip("_")


def _figure(figure: Any) -> str:
    """A share with its interval; a dash where it is not defined, as is the precision of a label never given."""
    return "–" if figure[0] != figure[0] else interval(figure).replace("1.00", "1.0")


def _p_genuine(rule_set: RuleSet) -> Iterator[str]:
    found = rule_set.calibration.figures.get("sampled") if rule_set.calibration else None
    if not found:
        return
    yield f"p_genuine on {found['n']:,} sampled turns, {found['genuine']:.0%} genuine"
    yield f"  AUC {_figure(found['auc'])}, F1 {_figure(found['f1'])}, calibration error {_figure(found['ece'])}"
    yield (
        "  above the threshold that gave precision .75 in the other folds: "
        f"precision {_figure(found['precision_at_75'])}, recall {_figure(found['recall_at_75'])}"
    )


def _ceiling(rule_set: RuleSet, ceiling: Mapping[str, Any]) -> Iterator[str]:
    if not ceiling:
        return
    yield "ceiling: boosted trees on the same features in the same folds, against rules and p_genuine"
    for source, found in ceiling.items():
        ours = rule_set.held_out.get(source, {})
        parts = [
            _against("macro-F1", found["report"]["macro_f1"], ours.get("macro_f1")),
            _against(
                "F1 of genuine",
                found["report"]["labels"].get(GENUINE, {}).get("f1"),
                ours.get("labels", {}).get(GENUINE, {}).get("f1"),
            ),
        ]
        p_genuine = rule_set.calibration.figures.get(source, {}) if rule_set.calibration else {}
        parts.append(_against("AUC", found["quality"]["auc"], p_genuine.get("auc")))
        yield f"  {escape(printable(source))}: {', '.join(parts)}"


def _against(name: str, ceiling: Any, ours: Any) -> str:
    """Both figures without their intervals, which stand in the tables."""
    told = ("–" if figure is None or figure[0] != figure[0] else decimal(figure[0]) for figure in (ceiling, ours))
    return f"{name} {' against '.join(told)}"
