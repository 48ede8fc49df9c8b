# Needs nothing but make and Python 3.11 or newer: everything else is installed into ./.venv.
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
OLDEST  := .venv-oldest

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo install dev test test-slow test-portable test-oldest docs peers lint format clean

# Tests allocate and free the same large arrays over and over: glibc is told to keep the memory,
# since handing it back to the system and asking again can cost more than the arithmetic.
TESTS := test test-slow test-portable test-oldest
$(TESTS): export MALLOC_MMAP_THRESHOLD_ := 4294967296
$(TESTS): export MALLOC_TRIM_THRESHOLD_ := 17179869184
$(TESTS): export MALLOC_TOP_PAD_ := 1073741824

# How processors round differently: each row caps the instructions that torch, MKL, oneDNN and
# numpy may use. The last one is this processor's own.
PLAIN  := ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41 \
          NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4 AVX512_ICL AVX512_SPR"
AVX2   := ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 \
          NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR"
NATIVE :=
PORTABLE_TESTS ?=
PEERS ?=

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: install  ## measure the example galaxy: demo.ecsv and demo.png
	$(BIN)/deeplegato demo

install: $(VENV)/.installed  ## install the package into .venv

dev: $(VENV)/.installed-dev  ## install the package with the tools for developing it

test: dev  ## run the tests and the examples of the docstrings
	$(BIN)/python -m pytest -m "not slow"

test-slow: dev  ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow

test-portable: dev  ## run the tests with other processors' kernels, on 1 and 2 threads
	@for kernels in '$(PLAIN)' '$(AVX2)' '$(NATIVE)'; do for threads in 1 2; do \
	  echo "== $${kernels:-this processor's own kernels}, $$threads thread(s)"; \
	  eval "env $$kernels OMP_NUM_THREADS=$$threads \
	    $(BIN)/python -m pytest -q -m 'not slow' $(PORTABLE_TESTS)" || exit 1; \
	done; done

# Old releases warn of what they use of newer ones: deprecations are no errors here.
test-oldest: $(OLDEST)/.installed  ## run the fast tests with the oldest releases that are allowed
	$(OLDEST)/bin/python -m pytest -m "not slow" -p no:cacheprovider \
	  -W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning -W ignore::FutureWarning

docs: $(VENV)/.installed-docs  ## build the documentation site: docs/_build/html/index.html
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

peers: $(VENV)/.installed-peers  ## fit the same galaxies with other programs: peers/peers.md (hours)
	$(BIN)/python benchmarks/peers run peers $(PEERS)
	$(BIN)/python benchmarks/peers renderers peers
	$(BIN)/python benchmarks/peers report peers -o peers

lint: dev  ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: dev  ## put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove everything that make has made
	rm -rf $(VENV) $(OLDEST) build dist docs/_build docs/_generated demo.ecsv demo.png .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: Python 3.11 or newer is needed; $(PYTHON) is older or absent. Try: make PYTHON=python3.12" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)

# An upgrade of the environment's own python must not install everything again: order only.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-peers: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[peers]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	@touch $@

# torchvision, which timm asks for, must be the one of the oldest torch. The export to ONNX needs a
# newer torch (see pyproject.toml): its tests are left out.
$(OLDEST)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	rm -rf $(OLDEST)
	$(BIN)/python -m venv $(OLDEST)
	$(BIN)/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct \
	  --editable ".[test]" "torchvision>=0.19"
	@touch $@
