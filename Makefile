# `make demo` and `make test` are all a newcomer needs; `make help` lists the rest.
# Everything runs in .venv, which is made from pyproject.toml and constraints/tested.txt.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# The machine's cores are shared: one thread a process unless told otherwise.
export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo test lint slow peers bench gpu-test clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /	/' | expand -t 12

setup: $(STAMP)  ## make .venv and install everything (again when pyproject.toml changes)

# Entry points are frozen when a package is installed, so the stamp depends on pyproject.toml.
# torch is bound by the constraint in the same pip run: pip then takes a CPU build where one is
# offered, and torchaudio does not bring another torch.
$(STAMP): pyproject.toml constraints/tested.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -c constraints/tested.txt -e '.[all]' --group test
	touch $(STAMP)

demo: setup  ## transcribe the shipped recording
	$(BIN)/seqgen run --plugin speech

test: lint  ## lint, types and tests
	$(BIN)/python -m pytest

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slow: setup  ## the tests that take longer than about 20 seconds
	$(BIN)/python -m pytest -m slow

peers: setup  ## install peers in environments of their own and compare with them
	@for script in tests/parity/install_*.sh; do echo "$$script"; bash "$$script" || exit 1; done
	$(BIN)/python -m pytest -m peer tests/parity

bench: setup  ## measure speed side by side
	$(BIN)/python benchmarks/run_all.py

gpu-test: setup  ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

clean:  ## remove environments and caches
	rm -rf $(VENV) .peers dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
