# One command each. `make help` lists them; nothing here needs more than make and a Python with venv.
PYTHON ?= python3
DEMO_ARGS ?=
# Where and what to test, e.g. `make test TESTS=tests/unit PYTEST_ARGS=-x`.
TESTS ?= tests
PYTEST_ARGS ?=
TESTS_COMPILED = $(if $(filter-out file,$(origin TESTS)),$(TESTS),tests/unit tests/conformance tests/integration)
# Test processes. More than four gain nothing: the integration tests share one machine's loopback.
JOBS ?= auto
# `make lock UPGRADE=--upgrade` moves the pins to the newest versions that pyproject.toml allows.
UPGRADE ?=
BENCH_ARGS ?=
GUARD_ARGS ?=
SIM_ARGS ?=

# Where none of that name exists, the default one is said to be missing.
VECTORS = $(or $(wildcard tests/*/test_*vectors*.py),tests/unit/test_vectors.py)

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_VENV := .venv-bench
BENCH_READY := $(BENCH_VENV)/.ready
BENCH_NODE := tests/bench/js/node_modules/.package-lock.json
PIP := $(BIN)/python -m pip --disable-pip-version-check
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock" $(UPGRADE) pyproject.toml

.DELETE_ON_ERROR:
.PHONY: help setup demo test check guard bench bench-peers compiled test-compiled collector scale sim verify lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1	\2/p' $(MAKEFILE_LIST) | awk -F '	' '{ printf "  make %-11s %s\n", $$1, $$2 }'

setup: $(READY) ## install everything into .venv, from the lock file and checked against its hashes

# Bytecode is compiled when first imported: that halves the set-up.
$(READY): requirements/dev.lock pyproject.toml hatch_build.py
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not on PATH: install Python 3.11 or newer, or name one: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("nats-mesh needs Python 3.11 or newer; $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12 ..." % v[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment: install its venv module (Debian: python3-venv)" >&2; exit 1; }
	@echo "installing the tools and libraries of requirements/dev.lock into $(VENV): about a minute, once"
	$(PIP) install --quiet --no-compile --require-hashes -r requirements/dev.lock
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## the whole mesh on this machine, with Bookinfo and load (DEMO_ARGS="--duration 10 -o json")
	@$(BIN)/nats-mesh demo $(DEMO_ARGS)

test: $(READY) ## every test, with reduced counts (TESTS=tests/unit, PYTEST_ARGS=...)
	@$(BIN)/python -m pytest -n $(JOBS) --maxprocesses 4 --dist worksteal $(PYTEST_ARGS) $(TESTS)

check: $(READY) ## lint, format, types, import rules, lock files, wire vectors, cost of a call
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.lockfile
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/unit/test_imports.py $(VECTORS)
	@$(BIN)/python -m tests.bench.guard

guard: $(READY) ## what a call costs, in instructions, against the last committed figures (GUARD_ARGS=--accept)
	@$(BIN)/python -m tests.bench.guard $(GUARD_ARGS)

compiled: $(READY) ## the package with its hot path compiled, in build/compiled (needs a C compiler)
	@$(BIN)/python -m tests.compiled

# The paths are for the processes that tests start; pytest itself would put the checkout first.
test-compiled: compiled ## the tests against build/compiled (TESTS=..., PYTEST_ARGS=...)
	@TEST_COMPILED=1 PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/build/compiled:$(CURDIR) $(BIN)/python -m pytest -n $(JOBS) --maxprocesses 4 \
		--dist worksteal -o "pythonpath=build/compiled ." $(PYTEST_ARGS) $(TESTS_COMPILED)

collector: ## OpenTelemetry's collector in build/otelcol, for the tests that send spans to it (needs Go, and minutes)
	@mkdir -p build
	cd tests/interop/otel && go build -o $(CURDIR)/build/otelcol .

bench: $(READY) ## the speed of calls, as ratios against what runs beside them (BENCH_ARGS="--quick")
	@$(BIN)/python -m tests.compiled --if-possible
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)

bench-peers: $(READY) $(BENCH_READY) $(BENCH_NODE) ## install what others use (.venv-bench, npm), then `make bench`
	@$(BIN)/python -m tests.compiled --if-possible
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)

$(BENCH_READY): requirements/bench.lock
	@test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV) || { rm -rf $(BENCH_VENV); exit 1; }
	$(BENCH_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/bench.lock
	@touch $@

# Without npm the bench names Moleculer as not installed, and measures the others.
$(BENCH_NODE): tests/bench/js/package-lock.json
	@if command -v npm >/dev/null; then cd tests/bench/js && npm ci --no-audit --no-fund && touch node_modules/.package-lock.json; \
	else echo "npm is not on PATH: the bench goes on without Moleculer" >&2; fi

scale: $(READY) ## what being idle, watching thousands and starting up cost, against budgets (BENCH_ARGS=...)
	@$(BIN)/python -m tests.bench.scale $(BENCH_ARGS)

sim: $(READY) ## the simulations' figures and curves anew, the same ones each time (SIM_ARGS=retry_storm)
	@$(BIN)/python -m tests.sim $(SIM_ARGS)

verify: check collector ## the long form: checks, then every test with full counts
	@MESH_FULL=1 $(MAKE) --no-print-directory test PYTEST_ARGS="--timeout 1800 $(PYTEST_ARGS)"

lock: $(READY) ## resolve pyproject.toml anew into requirements/*.lock (UPGRADE=--upgrade)
	$(COMPILE) --all-extras --output-file requirements/dev.lock
	$(COMPILE) --extra speed --extra otel --constraint requirements/dev.lock --output-file requirements/runtime.lock
	$(COMPILE:pyproject.toml=requirements/bench.in) --constraint requirements/dev.lock --output-file requirements/bench.lock
	@$(BIN)/python -m tests.lockfile

clean: ## remove everything that make or a tool made, .venv too
	rm -rf $(VENV) $(BENCH_VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache tests/interop/js/node_modules tests/bench/js/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
