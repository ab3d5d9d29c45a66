"""Labels candidate user turns by readable rules. Imports nothing of selfplay or rerank.

    table = filters.label(table)            # adds label, genuine, p_genuine, rule, evidence, rule_set
    filters.estimate_genuine(table)         # share genuine, with an interval

`table` is a polars table with one candidate a row: `query, answer, history, turn`, optionally `finish_reason`, the
signal columns (`features.SIGNALS`), and `turn_state`, which a set with a probe reads. Names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from filters.errors import RulesError
    from filters.estimate import estimate_genuine
    from filters.labelling import label
    from filters.labels import Label
    from filters.rules import Rules
    from filters.rules import load as load_rules

_HOMES = {
    "Label": ("labels", "Label"),
    "Rules": ("rules", "Rules"),
    "RulesError": ("errors", "RulesError"),
    "estimate_genuine": ("estimate", "estimate_genuine"),
    "label": ("labelling", "label"),
    "load_rules": ("rules", "load"),
}

__all__ = ["Label", "Rules", "RulesError", "estimate_genuine", "label", "load_rules"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'filters' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(f"filters.{module}"), attribute)
