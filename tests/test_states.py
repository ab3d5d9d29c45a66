"""The state of a turn: what transformers shows after a layer, whatever way it is come by."""

import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

torch.set_num_threads(1)

from selfplay.core import Draw, Prompt, Sampling  # noqa: E402
from selfplay.engines.base import Reader, ScoreRequest, SampleRequest  # noqa: E402
from selfplay.engines.states import RunningMean, caught  # noqa: E402
from selfplay.engines.transformers import TransformersEngine  # noqa: E402
from selfplay.errors import EngineError  # noqa: E402
from tests.toy_tokenizer import toy_tokenizer  # noqa: E402
