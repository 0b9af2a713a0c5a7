# `make demo` needs Python and make alone; `make test` also installs Debian packages, where it may. Both set up what
# they need in .venv and skip what is done already.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3,$(shell command -v $(name) 2>/dev/null)))
BIN = .venv/bin
# Builds of source packages are isolated: only this makes them respect the pinned versions.
export PIP_CONSTRAINT = $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: setup system demo test test-long lint wheels release docs parity starter slicer-pictures slicer-faults clean

setup: system .venv/.test  ## everything that tests and development need

system:  ## Debian packages that some tests need (debian-packages.txt)
	@tests/system-packages

.venv/pyvenv.cfg:
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml constraints.txt | .venv/pyvenv.cfg
	$(BIN)/pip install --quiet --editable ".[server,sample]"
	$(BIN)/pip install --quiet --no-deps monailabel pydicom-seg
	touch $@

.venv/.test: .venv/.demo
	$(BIN)/pip install --quiet --editable ".[server,sample,cohort,onnx,bundle,dev]"
	touch $@

.venv/.docs: .venv/.demo
	$(BIN)/pip install --quiet --editable ".[server,sample,docs]"
	touch $@

.venv/.release: .venv/.docs
	$(BIN)/pip install --quiet --editable ".[server,sample,docs,release]"
	touch $@

demo: .venv/.demo  ## anomaly maps of the sample study, over HTTP, into demo/
	$(BIN)/python -m sample_data.demo demo

test: setup lint  ## two workers, each with one thread: half the time of one with two, whose tests mostly wait
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not long" --numprocesses 2 --dist loadfile

test-long: setup
	$(BIN)/python -m pytest -m long

lint: .venv/.test  ## style, docstrings, complexity, types and docstring coverage
	$(BIN)/ruff check
	$(BIN)/pyright
	$(BIN)/interrogate lib monailabel_app MedCLIPAD benchmarks sample_data

wheels: .venv/.test  ## the package's wheel and the client's own, into dist/
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist . packaging/client

release: .venv/.release  ## everything of a release, checked, into dist/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python packaging/release.py

docs: .venv/.docs  ## the documentation site, into site/; first the pages that follow from the code
	$(BIN)/python docs/tools/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

parity: setup  ## arrays of the reference codes against ours, into docs/explanation/parity.md
	$(BIN)/python -m benchmarks.parity --long

starter: setup  ## the starter detector that the server ships, from the sample study
	$(BIN)/python -m sample_data.make_starter monailabel_app/starter

slicer-pictures: setup  ## docs/images/slicer-*.png: the module's panel and views, against a real server
	$(BIN)/python -m sample_data.make_study sample_data/study
	$(BIN)/python -m tests.slicer.pictures

slicer-faults: setup  ## docs/explanation/slicer-faults.md: the faults seeded into the module, and the tests that catch them
	$(BIN)/python -m tests.slicer.faults

clean:
	rm -rf .venv demo site sample_data/study
