"""How the rules of `selfplay train` compare with other learners of rules, on the same features in the same folds.

    pip install '.[train,bench]'
    python benchmarks/rule_learners.py                          # the text set, no model needed
    python benchmarks/rule_learners.py --set full --signals signals.parquet

Ours: forms that people wrote, with learned thresholds, alone and with thresholds on learned scores after them. Others:
a greedy precision-first list of tree paths (`path_list` below), RIPPER (Cohen 1995; wittgenstein), RuleFit (Friedman &
Popescu 2008; imodels), FIGS (Tan et al. 2022; imodels), a single decision tree. Those that know two classes take the
labels one by one: RIPPER as an ordered list, rarest label first, as its author has it; the others by the highest
probability. Beside them boosted trees that nobody can read. Intervals: bootstrap over conversations. A learner whose
library is missing is left out. Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from filters.features import Features
from filters.labels import Label
from filters.learning import ceiling, learn
from filters.learning.quality import report
from filters.learning.search import fit_rules
from selfplay.learning.training import read_judged, read_signals

ROOT = Path(__file__).parent.parent
GENUINE = Label.FOLLOW_UP.value
Matrix, Texts = NDArray[np.float64], NDArray[np.str_]
Learner = Callable[[Matrix, Texts, Matrix, int], tuple[Texts, int]]
"""Columns and labels to learn from, columns to label, seed → labels, and how many rules a person would have to read."""
Path_ = tuple[tuple[int, str, float], ...]
MOST_RULES, LEAST_CAUGHT = 60, 8
LEAST_PRECISION = 0.6


def weights_of(labels: Texts) -> Matrix:
    names, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return np.asarray((len(labels) / (len(names) * counts[index])) ** learn.RARE)


def fires(path: Path_, columns: Matrix) -> NDArray[np.bool_]:
    tests = (columns[:, k] <= value if op == "<=" else columns[:, k] > value for k, op, value in path)
    return np.logical_and.reduce([np.ones(len(columns), dtype=bool), *tests])


def paths_of(tree: Any, node: int = 0, path: Path_ = ()) -> Iterator[Path_]:
    """Every path from the root of a fitted tree, also those that end before a leaf."""
    if path:
        yield path
    if tree.children_left[node] >= 0:
        test = int(tree.feature[node]), float(tree.threshold[node])
        yield from paths_of(tree, tree.children_left[node], (*path, (test[0], "<=", test[1])))
        yield from paths_of(tree, tree.children_right[node], (*path, (test[0], ">", test[1])))


def path_list(columns: Matrix, labels: Texts, new: Matrix, seed: int) -> tuple[Texts, int]:
    """Greedy and precision first: of all paths of shallow random trees, the most precise on what is left comes next."""
    from sklearn.ensemble import RandomForestClassifier

    candidates: list[tuple[Path_, str, NDArray[np.bool_]]] = []
    for label in sorted(set(labels) - {GENUINE}):
        forest = RandomForestClassifier(25, max_depth=4, min_samples_leaf=5, max_features=0.4, random_state=seed)
        forest.fit(columns, labels == label, sample_weight=np.where(labels == label, 3.0, 1.0))
        found = {path for tree in forest.estimators_ for path in paths_of(tree.tree_)}
        for path in sorted(found, key=repr):
            caught = fires(path, columns)
            if (labels[caught] == label).sum() >= LEAST_PRECISION * max(caught.sum(), LEAST_CAUGHT):
                candidates.append((path, label, caught))
    held = np.array([caught for _, _, caught in candidates], dtype=np.float32)
    right = held * np.array([labels == label for _, label, _ in candidates], dtype=np.float32)
    left, chosen = np.ones(len(labels), dtype=np.float32), []
    while len(chosen) < MOST_RULES and len(candidates):
        n, hits = held @ left, right @ left
        worth = np.where(n >= LEAST_CAUGHT, hits / (n + 2), 0.0)  # two misses imagined, so that luck does not win
        best = int(worth.argmax())
        if worth[best] < LEAST_PRECISION:
            break
        chosen.append(candidates[best][:2])
        left *= 1 - held[best]
    given = np.full(len(new), GENUINE, dtype="U32")
    for path, label in reversed(chosen):
        given[fires(path, new)] = label
    return given, len(chosen)


def tree(columns: Matrix, labels: Texts, new: Matrix, seed: int) -> tuple[Texts, int]:
    from sklearn.tree import DecisionTreeClassifier

    model = DecisionTreeClassifier(max_leaf_nodes=40, min_samples_leaf=10, random_state=seed)
    model.fit(columns, labels, sample_weight=weights_of(labels))
    return model.predict(new).astype("U32"), int(model.get_n_leaves())


def ripper(columns: Matrix, labels: Texts, new: Matrix, seed: int) -> tuple[Texts, int]:
    import pandas
    from wittgenstein import RIPPER

    names = [f"f{k}" for k in range(columns.shape[1])]
    table, unseen = pandas.DataFrame(columns, columns=names), pandas.DataFrame(new, columns=names)
    given, left, rules = np.full(len(new), "", dtype="U32"), np.ones(len(labels), dtype=bool), 0
    for label in sorted(set(labels) - {GENUINE}, key=lambda label: int((labels == label).sum())):
        model = RIPPER(random_state=seed, max_rules=12, max_rule_conds=4, n_discretize_bins=10, k=1)
        model.fit(table[left], y=(labels == label)[left], pos_class=True)
        caught = np.asarray(model.predict(unseen), dtype=bool)
        given[caught & (given == "")] = label
        left &= ~np.asarray(model.predict(table), dtype=bool)
        rules += len(model.ruleset_.rules)
    return np.where(given == "", GENUINE, given), rules


def by_probability(make: Callable[[int], Any], count: Callable[[Any], int]) -> Learner:
    """A learner of two classes, asked for each label; the likeliest wins."""

    def learned(columns: Matrix, labels: Texts, new: Matrix, seed: int) -> tuple[Texts, int]:
        names, found, rules = sorted(set(labels)), [], 0
        for label in names:
            model = make(seed)
            model.fit(columns, (labels == label).astype(int))
            found.append(model.predict_proba(new)[:, 1])
            rules += count(model)
        return np.array(names, dtype="U32")[np.argmax(found, axis=0)], rules

    return learned


def figs(seed: int) -> Any:
    from imodels import FIGSClassifier

    return FIGSClassifier(max_rules=7, random_state=seed)


def rulefit(seed: int) -> Any:
    from imodels import RuleFitClassifier

    return RuleFitClassifier(max_rules=10, include_linear=False, random_state=seed, cv=False)


LEARNERS: dict[str, Learner] = {
    "greedy list of tree paths": path_list,
    "RIPPER": ripper,
    "FIGS": by_probability(figs, lambda model: int(model.complexity_)),
    "RuleFit": by_probability(rulefit, lambda model: len(model.rules_)),
    "decision tree": tree,
}
READABLE, OURS, CEILING = "ours, readable rules alone", "ours, with score rules", "boosted trees"


def readable(name: str, judged: learn.Judged) -> tuple[Texts, int]:
    given, counts = np.full(len(judged.labels), GENUINE, dtype="U32"), []
    for fold in np.unique(judged.folds):
        inside, outside = judged.take(np.flatnonzero(judged.folds != fold)), np.flatnonzero(judged.folds == fold)
        rules = fit_rules(name, inside.features, inside.labels, inside.sampled)
        features: Features = judged.features.take(outside)
        for rule in reversed(rules):
            given[outside[rule.fires(features)]] = rule.label.value
        counts.append(len(rules))
    return given, round(float(np.mean(counts)))


def held_out(learner: Learner, columns: Matrix, judged: learn.Judged, seed: int) -> tuple[Texts, int]:
    given, counts = np.full(len(judged.labels), "", dtype="U32"), []
    for fold in np.unique(judged.folds):
        here = judged.folds == fold
        given[here], rules = learner(columns[~here], judged.labels[~here], columns[here], seed)
        counts.append(rules)
    return given, round(float(np.mean(counts)))


def told(found: dict[str, dict[str, Any]]) -> dict[str, list[float]]:
    """What is compared, each with its interval."""
    each = {f"genuine, {where}": found[where]["labels"][GENUINE]["f1"] for where in ("written", "sampled")}
    return {"macro-F1, written": found["written"]["macro_f1"], **each}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=["text", "full"], default="text")
    parser.add_argument("--signals", type=Path, help="what `selfplay train --signals` kept; `full` needs it")
    parser.add_argument("--only", nargs="*", help="names of learners, as printed")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    table = read_judged(ROOT / "filters" / "judged")
    if given.signals:
        table, _ = read_signals(given.signals, table)
    judged = learn.read(table, given.seed)
    judged, _ = learn.divided(judged, np.zeros(len(judged.labels), dtype=bool), given.set)[given.set]
    columns = np.nan_to_num(judged.features.matrix(ceiling.inputs(judged.tiers)), nan=0.0)
    print(f"{given.set}: {len(judged.labels)} turns, {columns.shape[1]} features, {learn.FOLDS} folds")
    results: dict[str, Any] = {}
    for name in (READABLE, OURS, *LEARNERS, CEILING):
        if given.only and name not in given.only:
            continue
        begin = time.process_time()
        try:
            if name == OURS:
                learned = learn.learn_set(given.set, judged, given.seed)
                figures, rules = told(dict(learned.held_out)), len(learned.rules)
            elif name == CEILING:
                found = ceiling.ceiling(given.set, judged, given.seed)
                figures, rules = told({where: figures["report"] for where, figures in found.items()}), None
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    labels, rules = (
                        readable(given.set, judged)
                        if name == READABLE
                        else held_out(LEARNERS[name], columns, judged, given.seed)
                    )
                figures = told(
                    {
                        where: report(labels[rows], judged.labels[rows], judged.groups[rows], given.seed)
                        for where, rows in (("sampled", judged.sampled), ("written", ~judged.sampled))
                    }
                )
        except ModuleNotFoundError as error:
            print(f"{name:28} left out: {error.name} is not installed")
            continue
        seconds = time.process_time() - begin
        shown = "  ".join(f"{key} {v:.3f} [{low:.3f}, {high:.3f}]" for key, (v, low, high) in figures.items())
        print(f"{name:28} {'many' if rules is None else rules:>5} rules  {shown}  {seconds:.0f} s", flush=True)
        results[name] = {**figures, "rules": rules, "cpu_s": round(seconds, 1)}
    print(json.dumps({"set": given.set, "turns": len(judged.labels), "learners": results}))


if __name__ == "__main__":
    main()
