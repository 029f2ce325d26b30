# make lab    install and open JupyterLab on the first notebook
# make course the same, on the index of the course
# make test   install what the tests need and run them all: those without a browser in parallel, then the others
# make lint   ruff and mypy
# make docs   the documentation as a site, into docs/_build
# make model  train the embedded model from its fixed seed (about an hour on two cores; resumes)
# make bench  the benchmarks, each with its comparison in the same run
# On a Linux machine without a GPU, put PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu in front: PyPI's
# PyTorch for Linux is the CUDA build, which works too but is gigabytes larger.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: lab course test lint docs model bench constraints

lab: $(VENV)/installed
	$(BIN)/workbench lab

course: $(VENV)/installed
	$(BIN)/workbench lab --course

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --ignore tests/browser
	$(BIN)/python -m pytest tests/browser

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/installed-test
	$(BIN)/python -m sphinx -q -W --keep-going --fresh-env --write-all docs docs/_build

model: $(VENV)/installed
	$(BIN)/python -m workbench.tiny.train --out runs/tiny --export runs/tiny/weights

bench: $(VENV)/installed-test
	for file in benchmarks/[a-z]*.py; do $(BIN)/python $$file || exit 1; done

# Run after an upgrade that passed the tests. The oracles have a list of their own.
constraints: $(VENV)/installed-test
	{ sed -n '/^#/p' constraints.txt; $(PIP) freeze --all --exclude-editable --exclude pip \
		| grep -vixFf requirements-oracles.txt | sed 's/+.*//'; } > constraints.new
	mv constraints.new constraints.txt

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "expected Python 3.11 or newer, got %d.%d; name another: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

# A stamp is newer than what it was installed from, so that the second call installs nothing.
$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

# Chromium from the system where there is one, else Playwright's own.
$(VENV)/installed-test: pyproject.toml constraints.txt requirements-oracles.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test]'
	$(PIP) install --quiet --no-deps --ignore-requires-python --requirement requirements-oracles.txt
	command -v chromium || command -v google-chrome || $(BIN)/playwright install chromium
	touch $@ $(VENV)/installed
