# make demo   installs and runs the main job on bundled conversations
# make test   installs and runs all tests, the real SGLang on this CPU included
# make trials the long trials: many kills, a million rows

PYTHON ?= python3
VENV := .venv
SGLANG := .sglang
BIN := $(VENV)/bin
export TOKENIZERS_PARALLELISM := false
export SELFPLAY_SGLANG_PYTHON ?= $(CURDIR)/$(SGLANG)/bin/python

.PHONY: demo test unit integration lint trials clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "selfplay needs Python 3.11 or newer, found " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[local,dev]'
	touch $@

$(SGLANG)/installed: tests/integration/sglang_cpu/install.sh
	bash tests/integration/sglang_cpu/install.sh $(SGLANG)
	touch $@

demo: $(VENV)/installed
	$(BIN)/selfplay models get --all
	$(BIN)/selfplay run selfplay/examples/conversations.jsonl -o out/demo --n 8 --max-tokens 48 --fresh --show 3

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(VENV)/installed
	$(BIN)/pytest -q -m 'not integration and not trial'

integration: $(VENV)/installed $(SGLANG)/installed
	$(BIN)/selfplay models get --all
	$(BIN)/pytest -q -m 'integration and not trial'

test: lint unit integration

trials: $(VENV)/installed $(SGLANG)/installed
	$(BIN)/selfplay models get --all
	$(BIN)/pytest -q -m trial

clean:
	rm -rf $(VENV) $(SGLANG) out
