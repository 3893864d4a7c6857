# Everything here works on a fresh machine with Python 3.11 or later (venv, pip), git and make.

# The Python that makes the virtual environment; by default the first of these that is new enough.
PYTHON ?=
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Not the programs in examples/: they show ASP's own style.
FORMATTED := bench ckptd client examples/demo protocol tests
SEEDS ?= 200
FIRST ?= 1
BENCH ?=

.PHONY: help venv demo test check format bench bench-kill sweep clean

help:
	@echo 'make demo                       three daemons, a SIGKILL, and what each kind of checkpoint keeps'
	@echo 'make test                       all tests'
	@echo 'make check                      ruff, mypy --strict, import-linter'
	@echo 'make bench [BENCH="--cores 2"]  every figure beside its floor'
	@echo 'make bench-kill                 20 kills of the active node: time to the next write, nothing lost'
	@echo 'make sweep [SEEDS=n FIRST=seed] the simulator over n seeds'
	@echo 'make venv | format | clean      set up $(VENV), format the code, remove what was made'

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@for python in $(PYTHONS); do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "setting up $(VENV) with $$python"; \
	    exec $$python -m venv $(VENV); \
	  fi; \
	done; \
	echo 'Python 3.11 or later is needed: make PYTHON=/path/to/python3.11 …' >&2; exit 1
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(INSTALLED)
	@$(BIN)/python -m examples.demo

test: $(INSTALLED)
	$(BIN)/python -m pytest

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check $(FORMATTED)
	$(BIN)/mypy
	$(BIN)/mypy bench examples/demo
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format $(FORMATTED)

bench: $(INSTALLED)
	$(BIN)/python -m bench $(BENCH)

bench-kill: $(INSTALLED)
	$(BIN)/python -m bench.kill $(BENCH)

sweep: $(INSTALLED)
	$(BIN)/python -m ckptd.sim --sweep $(SEEDS) --first $(FIRST)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
