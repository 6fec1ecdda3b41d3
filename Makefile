# make demo   a small study on this machine, from nothing to a verdict
# make test   formatting, lint, types and the fast test suite
# make test-faults  the whole seeded fault matrices of storage and of the hosted side (long)
# make test-slow  training on several nodes with real processes (minutes)
# make test-cluster  the tests that need a Kubernetes, on a real node of this machine (root, Linux)
# make cluster, make cluster-down  that node, to work with, and every trace of it gone again
# make images  the three images of a run in a cluster, as OCI archives (needs buildah, skopeo, mmdebstrap)
# make bench-score DATA=DIR  answers a second of the SQL scorer
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Versions that are known to work together; change them with `make constraints`.
PIP := $(BIN)/python -m pip --disable-pip-version-check

export OMP_NUM_THREADS ?= 1

.PHONY: images demo test test-faults test-slow test-cluster cluster cluster-down bench-score lint constraints clean help

help:
	@grep '^# make' Makefile | cut -c3-

demo: $(VENV)/.installed-jobs
	env -u OMP_NUM_THREADS $(BIN)/launcher submit sql --target local

test: lint
	$(BIN)/pytest -n 2 --dist loadgroup $(PYTEST_ARGUMENTS)

test-faults: $(VENV)/.installed-test
	$(BIN)/pytest -n 2 -m faults

test-slow: $(VENV)/.installed-test
	$(BIN)/pytest -m slow $(PYTEST_ARGUMENTS)

test-cluster: $(VENV)/.installed-test
	TUNEYARD_CLUSTER_REQUIRED=1 $(BIN)/python -m tests.cluster during --gpus 4 -- \
	  $(BIN)/pytest -m cluster $(PYTEST_ARGUMENTS)

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

# Resolve anew, without the constraints, and write down what was found.
constraints: | $(VENV)/bin/python
	$(PIP) install --quiet --upgrade --upgrade-strategy eager --editable '.[test]'
	$(PIP) freeze --exclude-editable | grep -iv -e '^pip==' -e '^setuptools==' > constraints.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
