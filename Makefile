# make demo: install, make data, train, evaluate, draw.   make test: install, run the tests and nothing else.
VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready
DATA   := data/demo
WORK   := work_dirs/demo
CONFIG := configs/bevformer/bevformer_nano.py

# The first interpreter between 3.10 and 3.12 that starts; override with make PYTHON=/path/to/python3.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1 && echo $$p && break; done)

.PHONY: setup demo test lint clean-demo

setup: $(READY)

$(READY): requirements.txt requirements-no-deps.txt setup.py
	@test -n "$(PYTHON)" || { echo "No Python 3.10-3.12 found. Install one, or run: make PYTHON=/path/to/python3 $(MAKECMDGOALS)"; exit 1; }
	@echo "== Creating $(VENV) with $$($(PYTHON) --version) (about 2 minutes, 2 GB with a CPU build of torch)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { echo "The venv module is missing: install python3-venv."; exit 1; }
	@echo "== Installing the pinned requirements"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-no-deps.txt
	@echo "== Installing bevformer_plugin in development mode"
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(PY) -c "import bevformer_plugin as b; print('== Ready: bevformer_plugin', b.__version__, 'with mmcv operators:', b.ops.MMCV_EXT)"
	@touch $@

test: setup
	$(PY) -m pytest

lint: setup
	$(PY) -m ruff check .
