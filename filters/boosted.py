"""A sum of small decision trees (gradient boosting, Friedman 2001), evaluated by numpy and kept as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.checking import numbers
from filters.errors import RulesError
from filters.features import Features
from filters.scores import measured

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

LEAF = -1
_BLOCK = 8192
"""Rows that go through all trees together: few enough for a processor's cache."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Nodes in an order where children come after their parent; one entry per node.

    Attributes:
        feature: Input that a node tests, `LEAF` at a leaf.
        threshold: A row goes left where its value is at most this.
        left, right: Children; 0 at a leaf.
        value: What a leaf adds to the log-odds; 0 elsewhere.
    """

    feature: tuple[int, ...]
    threshold: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    value: tuple[float, ...]

    def predict(self, columns: Matrix) -> Matrix:
        """Args: the inputs, shape (k, n). Returns: shape (n,)."""
        # All rows at every node, children first: in trees this small that is faster than to part the rows.
        below: list[Matrix | float] = list(self.value)
        for node in reversed(range(len(below))):
            feature = self.feature[node]
            if feature != LEAF:
                goes_left = columns[feature] <= self.threshold[node]
                below[node] = np.where(goes_left, below[self.left[node]], below[self.right[node]])
        return np.broadcast_to(below[0], columns.shape[1])


@dataclass(frozen=True, slots=True)
class Boosted:
    """Log-odds of a follow-up as the sum of trees over k features; an unknown value counts as 0, as in `scores`."""

    inputs: tuple[str, ...]
    trees: tuple[Tree, ...]

    def log_odds(self, features: Features) -> Matrix:
        """Against an average turn, shape (n,)."""
        columns = np.ascontiguousarray(np.nan_to_num(features.matrix(self.inputs), nan=0.0).T)
        total = np.zeros(len(features))
        for begin in range(0, len(features), _BLOCK):
            rows = slice(begin, begin + _BLOCK)
            for tree in self.trees:
                total[rows] += tree.predict(columns[:, rows])
        return total

    def to_json(self) -> dict[str, Any]:
        """A tree is a list of nodes: [feature, threshold, left, right], or [value] at a leaf."""
        return {
            "inputs": list(self.inputs),
            "trees": [
                [
                    [round(value, 5)] if feature == LEAF else [feature, float(f"{threshold:.7g}"), left, right]
                    for feature, threshold, left, right, value in zip(
                        tree.feature, tree.threshold, tree.left, tree.right, tree.value, strict=True
                    )
                ]
                for tree in self.trees
            ],
        }

    @classmethod
    def from_json(cls, data: Any, place: str) -> Boosted:
        """Raises: RulesError with the place."""
        inputs = measured(data.get("inputs") if isinstance(data, dict) else None, f"{place}.inputs")
        trees = data.get("trees")
        if not isinstance(trees, list):
            raise RulesError(f"{place}.trees must be a list")
        return cls(
            inputs, tuple(_tree(tree, len(inputs), f"{place}.trees[{index}]") for index, tree in enumerate(trees))
        )


def _tree(nodes: Any, k: int, place: str) -> Tree:
    if not isinstance(nodes, list) or not nodes:
        raise RulesError(f"{place} must be a list of nodes")
    columns: list[tuple[int, float, int, int, float]] = []
    for index, node in enumerate(nodes):
        where = f"{place}[{index}]"
        if isinstance(node, list) and len(node) == 1:
            columns.append((LEAF, 0.0, 0, 0, numbers(node, 1, where)[0]))
            continue
        feature, threshold, left, right = numbers(node, 4, where)
        # Children after their parent: a walk down cannot go round in a circle.
        whole = all(x.is_integer() for x in (feature, left, right))
        if not (whole and 0 <= feature < k and index < left < len(nodes) and index < right < len(nodes)):
            raise RulesError(f"{where} names a feature or a node that is not there")
        columns.append((int(feature), threshold, int(left), int(right), 0.0))
    feature_, threshold_, left_, right_, value_ = zip(*columns, strict=True)
    return Tree(feature_, threshold_, left_, right_, value_)
