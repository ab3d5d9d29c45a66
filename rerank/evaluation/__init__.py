"""How good a ranking is, measured on judged turns: how often the selected turn is genuine, and how well scores order.

Needs columns of judged turns and of scores, no files and no models. Every figure comes with a bootstrap interval that
draws whole conversations, and all figures of one table share the same draws, so that differences are paired.
"""

from rerank.evaluation.bootstrap import Bootstrap, Estimate
from rerank.evaluation.crossing import CrossValidation, cross_validate
from rerank.evaluation.figures import figures, selected_genuine
from rerank.evaluation.order import auc
from rerank.folds import assign_folds

__all__ = [
    "Bootstrap",
    "CrossValidation",
    "Estimate",
    "assign_folds",
    "auc",
    "cross_validate",
    "figures",
    "selected_genuine",
]
