# Every target sets up what it needs in .venv; a second call installs nothing again.
PYTHON ?= python3
BIN := .venv/bin
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: help demo test test-slow lint format bench serve docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

# What runs need; what tests and tools need besides; what the documentation needs besides.
.venv/run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dfnas needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/dev: .venv/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: .venv/run  ## digits, from a trained network to a smaller one, in minutes
	$(BIN)/dfnas run configs/digits.yaml --run-dir runs/digits

test: .venv/dev  ## the tests, two at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

test-slow: .venv/dev  ## the tests with clusters, signals, chaos, emulators and a browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m slow

lint: .venv/dev  ## style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: .venv/dev  ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/dev  ## how fast synthesis is here; the other benchmarks say how they are run in docs/results
	$(BIN)/python -m benchmarks.synthesis_speed

serve: .venv/run  ## Prefect server, work pool, worker and deployments, and a first run
	$(BIN)/python -m flows.serve

.venv/docs: .venv/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

docs: .venv/docs  ## the documentation as a site in docs/_build
	$(BIN)/sphinx-build -W --keep-going docs docs/_build

clean:  ## delete the virtual environment and caches, not the runs
	rm -rf .venv docs/_build .pytest_cache .ruff_cache .hypothesis *.egg-info
