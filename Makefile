# make demo   sets up what is missing, runs the main job on real data, ends with a report
# make test   sets up what is missing, runs the tests
# make help   lists the rest

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

LOCK_OPTIONS := --generate-hashes --universal --python-version 3.11 --no-header --no-annotate --quiet

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-platform lint schema lock renew bench-ingestion bench-objects bench-transformation bench-anomaly bench-loading bench-merging bench-search bench-orchestration clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## install what is missing into .venv

# A changed lock or project file installs again; an unchanged one costs nothing. pip fetches uv, which
# installs the rest in a quarter of pip's time; where uv does not run, pip does it all.
$(READY): requirements.lock requirements-uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; say which: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing: about a minute the first time ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-uv.lock && \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --no-deps --require-hashes -r requirements.lock && \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable . || \
	  { echo "Installing with pip, since uv did not do it: some minutes ..." && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .; }
	@$(BIN)/python -m compileall -q blocks cli demo deployments embedded flows tasks
	@touch $@

demo: $(READY)  ## run the main job on real data
	@$(BIN)/dpp demo

up: $(READY)  ## open the Prefect UI with a worker, until Ctrl-C
	@$(BIN)/dpp up

test: $(READY)  ## run the tests
	@$(BIN)/python -m pytest

test-platform: $(READY)  ## run the tests of clusters, shards and bootstrap too, some minutes more
	@DPP_TEST_PLATFORM=1 $(BIN)/python -m pytest tests/e2e

lint: $(READY)  ## ruff, mypy, the import contracts, dpp lint and actionlint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/dpp lint
	@$(BIN)/actionlint

schema: $(READY)  ## write docs/dataset.schema.json anew
	@$(BIN)/python -m tasks.model.json_schema > docs/dataset.schema.json

lock: $(READY)  ## after a change of pyproject.toml: resolve it into requirements.lock; pins stay where they can
	@$(BIN)/uv pip compile pyproject.toml --all-extras $(LOCK_OPTIONS) --output-file requirements.lock
	@echo uv | $(BIN)/uv pip compile - $(LOCK_OPTIONS) --output-file requirements-uv.lock

renew: LOCK_OPTIONS += --upgrade
renew: lock  ## move every pin to the newest version within its bounds

PEERS := .venv-peers/.ready

$(PEERS): benchmarks/requirements.txt
	@test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@

bench-ingestion: $(READY) $(PEERS)  ## measure extraction beside pandas and dlt, about ten minutes
	@$(BIN)/python -m benchmarks.ingestion

bench-objects: $(READY)  ## measure planning 100,000 objects, and small ones beside a large one
	@$(BIN)/python -m benchmarks.objects

bench-transformation: $(READY) $(PEERS)  ## measure transformation beside pandas and Polars, about ten minutes
	@$(BIN)/python -m benchmarks.transformation

bench-anomaly: $(READY)  ## measure how well the learned checks find injected faults
	@$(BIN)/python -m benchmarks.anomaly

bench-loading: $(READY) $(PEERS)  ## measure loading beside raw COPY, pandas, ADBC, dlt and sling
	@$(BIN)/python -m benchmarks.loading

bench-merging: $(READY)  ## measure the forms of a merge, into tables of 1 and 10 million rows
	@$(BIN)/python -m benchmarks.merging

bench-search: $(READY)  ## measure a search index of a million documents
	@$(BIN)/python -m benchmarks.search

bench-orchestration: $(READY)  ## measure what Prefect costs each partition of a run, about ten minutes
	@$(BIN)/python -m benchmarks.orchestration

clean:  ## remove the installation and everything the demo made
	@rm -rf $(VENV) .venv-peers .local
