# Two commands from a fresh clone: `make run` and `make test`. They need Python 3.11 or later, and make.

PYTHON ?= $(firstword $(foreach v,3.11 3.12 3.13 3.14,$(shell command -v python$(v))) python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest -rfEs
IN_PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: run test test-quick check bench format clean

run: $(VENV)/run.stamp  ## cluster the shipped weather data, Prefect included
	$(BIN)/kmeans-dask run examples/weather/job.toml

test: $(VENV)/dev.stamp  ## every test, on up to 4 cores
	$(PYTEST) $(IN_PARALLEL)

test-quick: $(VENV)/dev.stamp  ## without the slow ones and those that kill processes
	$(PYTEST) $(IN_PARALLEL) -m "not slow and not fault"

check: $(VENV)/dev.stamp  ## style, types, layers, and the examples in the docs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) --doctest-modules --doctest-glob='*.md' kmeans_dask pipeline flows docs README.md

bench: $(VENV)/bench.stamp  ## compare speed with others', about an hour; or make bench PARTS="cluster job"
	$(BIN)/python -m benchmarks $(PARTS)

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

clean:
	rm -rf build dist examples/weather/out .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# A stamp is newer than what it was made from, so the second call installs nothing.
$(VENV)/run.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[all]'
	touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[all,dev]'
	touch $(VENV)/run.stamp $@

$(VENV)/bench.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[all,dev,bench]'
	touch $(VENV)/run.stamp $(VENV)/dev.stamp $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "kmeans-dask needs Python 3.11 or later; $(PYTHON) is older or missing. Name one: make PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
