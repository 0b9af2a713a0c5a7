# `make demo` and `make test` set everything up in .venv first; what is done already is skipped.
PYTHON ?= python3.11
BIN = .venv/bin
# Builds of source packages are isolated: only this makes them respect the pinned versions.
export PIP_CONSTRAINT = $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: setup system demo test test-long lint parity starter slicer-pictures slicer-faults clean

setup: system .venv/.ready

system:  ## Debian packages that some tests need (debian-packages.txt)
	@tests/system-packages

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

parity: setup  ## arrays of the reference codes against ours, into docs/parity.md
	$(BIN)/python -m benchmarks.parity --long

starter: setup  ## the starter detector that the server ships, from the sample study
	$(BIN)/python -m sample_data.make_starter monailabel_app/starter

slicer-pictures: setup  ## docs/images/slicer-*.png: the module's panel and views, against a real server
	$(BIN)/python -m sample_data.make_study sample_data/study
	$(BIN)/python -m tests.slicer.pictures

slicer-faults: setup  ## docs/slicer-faults.md: the faults seeded into the module, and the tests that catch them
	$(BIN)/python -m tests.slicer.faults

clean:
	rm -rf .venv demo sample_data/study
