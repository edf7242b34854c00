# Each target creates the environment that it needs. `make` lists the targets.
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
# uv shares files between environments by hard links where possible.
UV := $(BIN)/uv
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo docs docs-serve test test-ci test-all mutants check fix build release-check bench bench-gpu clean tensorboard

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## create the environment .venv (several GB)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "agebench needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.11 setup")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip > /dev/null
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) pip install --quiet --python $(BIN)/python --compile-bytecode --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: $(READY) ## generate synthetic faces, train a small ResNet, write a report (3 minutes)
	$(BIN)/python -m agebench.train experiment=demo

test: $(READY) ## run the fast tests (4 minutes on 2 cores)
	$(BIN)/python -m pytest -m "not slow and not ci" --numprocesses auto --dist worksteal

test-ci: $(VENV)/.docs ## run the slower tests that CI also runs: killed runs, sweeps, DDP, exports, fuzz, the documentation site (9 minutes)
	$(BIN)/python -m pytest -m ci --numprocesses auto --dist worksteal

test-all: $(VENV)/.docs ## run all tests, and show the coverage by package
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal --cov --cov-report=json; status=$$?; $(BIN)/python tests/coverage_table.py; exit $$status

docs: $(VENV)/.docs ## build the documentation site into build/site (1 minute)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "open build/site/index.html in a browser"

docs-serve: $(VENV)/.docs ## show the documentation in a browser on this machine, and rebuild it at each change
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --dev-addr 127.0.0.1:8000

$(VENV)/.docs: $(READY)
	$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable ".[dev,docs]"
	touch $@

mutants: $(READY) ## check that the tests notice small wrong changes of the code (20 minutes on 2 cores)
	$(BIN)/python tests/mutants/run.py

check: $(READY) ## check lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(READY) ## fix lint and format automatically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

build: $(READY) ## build the source distribution and the wheel into dist
	rm -rf dist
	$(UV) build --no-build-isolation --python $(BIN)/python

release-check: build ## build the packages, check their metadata and contents, train with the wheel (2 minutes)
	$(UV) tool run twine check --strict dist/*
	$(BIN)/python -m pytest tests/e2e/test_wheel.py

.PHONY: fuzz experiments
fuzz: $(READY) ## run the commands on 3,000 damaged inputs and hostile overrides (15 minutes)
	$(BIN)/python tests/fuzz --corpus --cases 3000

experiments: $(READY) ## run studies again and draw their tables, such as make experiments STUDIES="introduction leak_demo"
	$(BIN)/python experiments/studies.py $(STUDIES)

bench: $(READY) ## run the speed benchmarks (minutes; needs an idle machine)
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.sweeps
	$(BIN)/python -m benchmarks.start
	$(BIN)/python -m benchmarks.jpeg_job
	$(BIN)/python -m benchmarks.augment
	$(BIN)/python -m benchmarks.packing
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.chart

bench-gpu: $(READY) ## run the GPU benchmark; needs MNIST in data/ (minutes)
	$(BIN)/python -m benchmarks.gpu

tensorboard: $(READY) ## compare the runs in outputs/ in a browser on this machine
	@echo "TensorBoard listens on 127.0.0.1 only: no other machine can connect"
	$(BIN)/tensorboard --logdir outputs --host 127.0.0.1

clean: ## remove the environment and caches of tools; keep data and outputs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .coverage dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
