# make demo          a small study on this machine, from nothing to a verdict
# make test          formatting, lint, types and the fast test suite
# make test-slow     training on several nodes with real processes (2 minutes)
# make test-cluster  the tests that need a Kubernetes, on a real node of this machine (root, Linux)
# make test-chaos    the long matrices of faults on that node: every way to kill, every component lost
# make test-faults   the whole seeded fault matrices of storage and of the hosted side (long)
# make cluster       start that node and leave it running, for work by hand
# make cluster-down  remove every trace of that node
# make images        the three images of a run in a cluster, as OCI archives (needs buildah, skopeo, mmdebstrap)
# make bench-score DATA=DIR  answers per second of the SQL scorer
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Versions that are known to work together; change them with `make constraints`.
PIP := $(BIN)/python -m pip --disable-pip-version-check

export OMP_NUM_THREADS ?= 1

.PHONY: images demo test test-fast test-slow test-cluster test-chaos test-faults cluster cluster-down bench-score \
  lint constraints clean help

help:
	@grep '^# make' Makefile | cut -c3-

demo: $(VENV)/.installed-jobs
	env -u OMP_NUM_THREADS $(BIN)/launcher submit sql --target local

test: lint test-fast

test-fast: $(VENV)/.installed-test
	$(BIN)/pytest -n 2 --dist loadgroup --durations=25 $(PYTEST_ARGUMENTS)

test-faults: $(VENV)/.installed-test
	$(BIN)/pytest -n 2 --dist loadgroup -m faults $(PYTEST_ARGUMENTS)

test-slow: $(VENV)/.installed-test
	$(BIN)/pytest -m slow --durations=5 $(PYTEST_ARGUMENTS)

# Tests with the marker `alone` disturb the node: they run after the others, one by one.
CLUSTER = TUNEYARD_CLUSTER_REQUIRED=1 $(BIN)/python -m tests.cluster during --gpus 4 --
CLUSTER_PYTEST = $(BIN)/pytest -v --durations=20 $(PYTEST_ARGUMENTS)

test-cluster: $(VENV)/.installed-test
	$(CLUSTER) sh -c '$(CLUSTER_PYTEST) -n 3 --dist loadgroup -m "cluster and not alone and not chaos" && \
	  $(CLUSTER_PYTEST) -m "cluster and alone and not chaos"'

test-chaos: $(VENV)/.installed-test
	$(CLUSTER) $(CLUSTER_PYTEST) -m chaos

cluster: $(VENV)/.installed-test
	$(BIN)/python -m tests.cluster up --gpus 4

cluster-down: $(VENV)/.installed-test
	$(BIN)/python -m tests.cluster down

images: $(VENV)/.installed-test
	$(BIN)/python -m images

bench-score: $(VENV)/.installed-test
	$(BIN)/python benchmarks/score_sql.py --data $(DATA)

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache > /dev/null || $(BIN)/lint-imports --no-cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 demo" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@

# Resolve without the constraints, and write the versions found.
constraints: | $(VENV)/bin/python
	$(PIP) install --quiet --upgrade --upgrade-strategy eager --editable '.[test]'
	$(PIP) freeze --exclude-editable | grep -iv -e '^pip==' -e '^setuptools==' > constraints.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
