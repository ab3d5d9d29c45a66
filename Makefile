# make demo    installs and runs the main job on bundled conversations
# make test    installs and runs everything: lint, types, unit tests, integration tests with real models and servers
# make trials  the long trials: twenty kills, a million rows

PYTHON ?= python3
VENV := .venv
SGLANG := .sglang
BIN := $(VENV)/bin
PYTEST := $(BIN)/pytest -q
export TOKENIZERS_PARALLELISM := false
export SELFPLAY_SGLANG_PYTHON ?= $(CURDIR)/$(SGLANG)/bin/python

# In tests one thread is faster than several that wait for each other on a busy machine.
unit integration trials: export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint unit integration trials models sglang clean

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "selfplay needs Python 3.11 or newer, found " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[local,dev]'
	@touch $@

models: $(VENV)/installed
	@$(BIN)/selfplay models get --all

# An environment of its own, since SGLang pins its own torch and transformers. Does nothing where it is up to date.
sglang:
	bash tests/integration/sglang_cpu/install.sh $(SGLANG)

demo: models
	$(BIN)/selfplay run selfplay/examples/conversations.jsonl -o out/demo --limit 20 --n 8 --max-tokens 48 --fresh --show 3

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: models
	$(PYTEST) -n 2 -m 'not integration and not trial'

integration: models sglang
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 --dist loadgroup -m 'integration and not trial' --durations=12

test: lint unit integration

trials: models sglang
	$(PYTEST) -m trial

clean:
	rm -rf $(VENV) $(SGLANG) out
