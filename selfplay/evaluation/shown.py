"""What `selfplay evaluate` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from selfplay.evaluation.scores import OURS
from selfplay.showing.figures import console_for_figures, print_line, table_of
from selfplay.terminal import printable

LONGEST_NAME = 30
SIGNALS_SHOWN = 10
"""Signals in the table of what each is worth; the file has all."""

Figure = Sequence[float | None]


def show(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints an evaluation as `evaluating.evaluate` gives it."""
    console = console_for_figures() if console is None else console
    for line in _head(found):
        print_line(console, line)
    _selection(console, found["selection"])
    _order(console, found["order"])
    if found.get("ablation"):
        _ablation(console, found["ablation"])
    for source, figures in found.get("left_out", {}).items():
        _left_out(console, source, figures)


def _head(found: Mapping[str, Any]) -> Iterator[str]:
    sources = ", ".join(f"{n:,} {_safe(source)}" for source, n in found["sources"].items())
    yield f"{sum(found['sources'].values()):,} judged turns ({sources}), tiers: {found['tiers']}"
    learned = found["learned"]
    if "folds" in learned:
        yield f"rules, calibration and weights learned anew in {learned['folds']} folds of conversations"
    else:
        yield f"rules: {_safe(learned['rules'])}, weights: {_safe(learned['weights'])}, taken as they are"
        if learned["learned_from_these"]:
            yield "the weights were learned from these very turns: the figures are too good"
    yield "95 % intervals by bootstrap over conversations; differences are paired"


def _selection(console: Console, found: Mapping[str, Any]) -> None:
    print_line(console)
    print_line(
        console,
        f"[bold]selection[/]: {found['turns']:,} sampled turns, {found['genuine']:.0%} genuine, at {found['sites']:,} "
        f"sites of {found['conversations']:,} conversations",
    )
    print_line(console, "share genuine of the turn selected from N candidates of a site")
    few = [place for place, n in enumerate(found["n"][:-1]) if n > 1 and n & (n - 1) == 0][-3:]
    table = table_of(console, "", *(f"N={found['n'][place]}" for place in few), "all", f"{OURS} has more")
    for name, curve in found["curves"].items():
        more = found["minus"].get(name)
        table.add_row(
            name,
            *(decimal(curve[place][0]) for place in few),
            interval(curve[-1]),
            interval(more, signed=True) if more else "",
        )
    console.print(table)
    ratio, kept = interval(found["ratio_random"], digits=2), found["kept"]
    print_line(console, f"{ratio} times random, {percent(found['ratio_oracle'])} of the oracle")
    print_line(
        console,
        f"as a run selects, only whole turns that passed: at {percent(kept['sites'])} of the sites, "
        f"{interval(kept['genuine'])} genuine",
    )


def _order(console: Console, groups: Mapping[str, Any]) -> None:
    print_line(console)
    print_line(console, "[bold]order[/]: near is AUC of follow_up among follow_up, off_topic and generic")
    table = table_of(console, "groundedness of", "turns", "near", "AUC", "Spearman", "nDCG")
    for group, found in groups.items():
        for name, figures in found["scores"].items():
            first = name == "groundedness"
            if not first and group != "sampled":
                continue
            rest = (decimal(figures[key][0]) for key in ("auc", "spearman", "ndcg"))
            where = _name(group) if first else f"  {name.replace('groundedness ×', 'times')}"
            table.add_row(where, f"{found['turns']:,}" if first else "", interval(figures["auc_near"], digits=2), *rest)
    console.print(table)


def _ablation(console: Console, found: Mapping[str, Any]) -> None:
    print_line(console)
    print_line(console, "[bold]without a signal[/], weights learned anew: what is lost")
    table = table_of(console, "without", "selected", "lost", "near lost")
    tiers = [name for name in found if name.startswith("tier ")]
    single = sorted((name for name in found if name not in tiers), key=lambda name: -(found[name]["auc_lost"][0] or 0))
    for name in (*tiers, *single[:SIGNALS_SHOWN]):
        row = found[name]
        lost = (interval(row[key], signed=True) for key in ("selected_lost", "auc_lost"))
        table.add_row(name, decimal(row["selected"][0], 3), *lost)
    console.print(table)
    if len(single) > SIGNALS_SHOWN:
        print_line(console, f"and {len(single) - SIGNALS_SHOWN} more signals, each with less AUC to lose")


def _left_out(console: Console, source: str, found: Mapping[str, Any]) -> None:
    print_line(console)
    print_line(console, f"[bold]{_safe(source)} left out[/]: {found['turns']:,} turns at {found['sites']:,} sites")
    print_line(console, "unseen: ranked by what written turns and other generators taught in other conversations")
    if found["no_rules"]:
        print_line(console, f"no rules without it: {_safe(found['no_rules'])}")
    table = table_of(console, "selected by", "seen", "unseen", "lost")
    for way, row in found["selected"].items():
        lost = interval(row["lost"], signed=True, digits=2)
        table.add_row(way, *(interval(row[who], digits=2) for who in ("seen", "unseen")), lost)
    seen, unseen = found["groundedness"]["seen"], found["groundedness"]["unseen"]
    for key, title in (("auc_near", "  its AUC near"), ("spearman", "  its Spearman")):
        table.add_row(title, interval(seen[key], digits=2), interval(unseen[key], digits=2), "")
    console.print(table)
    print_line(console, f"random {interval(found['random'], digits=2)}, oracle {interval(found['oracle'], digits=2)}")


def _name(source: str) -> str:
    return escape(printable(source, LONGEST_NAME))


def _safe(text: object) -> str:
    return escape(printable(str(text)))


def decimal(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """A share without the zero before the point; a dash where it is not defined."""
    if value is None:
        return "–"
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def interval(figure: Figure, signed: bool = False, digits: int = 3) -> str:
    """A figure with its interval."""
    value, low, high = (decimal(each, digits, signed) for each in figure)
    return f"{value} [{low}, {high}]"


def percent(figure: Figure) -> str:
    """A share with its interval, in percent."""
    if figure[0] is None:
        return "–"
    value, low, high = (f"{100 * (each or 0):.0f}" for each in figure)
    return f"{value} % [{low}, {high}]"
