# `make demo` and `make test` set everything up in .venv first; what is done already is skipped.
PYTHON ?= python3.11
BIN = .venv/bin
# Builds of source packages are isolated: only this makes them respect the pinned versions.
export PIP_CONSTRAINT = $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: setup demo test test-long lint starter clean

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable ".[server,sample,dev]"
	$(BIN)/pip install --quiet --no-deps monailabel pydicom-seg
	touch $@

demo: setup  ## the main job, over HTTP, into demo/
	$(BIN)/python -m sample_data.demo demo

test: setup lint
	$(BIN)/python -m pytest -m "not long"

test-long: setup
	$(BIN)/python -m pytest -m long

lint: setup
	$(BIN)/ruff check

starter: setup  ## the starter detector that the server ships, from the sample study
	$(BIN)/python -m sample_data.make_starter monailabel_app/starter

clean:
	rm -rf .venv demo sample_data/study
