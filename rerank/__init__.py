"""Orders candidate user turns by groundedness in the answer. Imports nothing of selfplay or filters."""

from rerank.errors import WeightsError
from rerank.explain import brief, full
from rerank.rank import rank
from rerank.weights import Weights, load_weights, save_weights

__all__ = ["Weights", "WeightsError", "brief", "full", "load_weights", "rank", "save_weights"]
