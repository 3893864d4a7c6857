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
MUTANT_SEEDS ?= 2000
BENCH ?=
MINUTES ?= 10
# Most tests wait for daemons and timers: one process more than there are cores.
TEST_JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
# Containers often have it set: then every daemon of every test compiles its modules again.
export PYTHONDONTWRITEBYTECODE :=
SPREAD := -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: help venv demo test test-extended test-all test-pythons smoke check compile-check conformance format bench \
	bench-time-outs bench-kill bench-silence \
	bench-handover bench-join bench-mapping bench-takeover bench-budget soak sweep sweep-mutants fuzz clean

help:
	@echo 'First steps'
	@echo '  make demo             three daemons, a SIGKILL, and what each kind keeps'
	@echo '  make venv             set up $(VENV)'
	@echo
	@echo 'Tests'
	@echo '  make test             every rule, requirement and fault once: 3 minutes'
	@echo '  make test-extended    more real clusters and seeds: what .ci/run adds'
	@echo '  make test-all         all tests, also those that take minutes, or repeat'
	@echo '                        others with more sizes, seeds and transports'
	@echo '  make test-pythons     core and clients on every Python from 3.11 on'
	@echo '  make smoke            what is installed, in clean environments'
	@echo '  make conformance      the SAF requirements; writes docs/conformance.md'
	@echo '  make check            ruff, mypy --strict, pyright, import-linter'
	@echo '  make compile-check    the core compiles with mypyc, with the same traces'
	@echo
	@echo 'Simulator and endurance'
	@echo '  make sweep            SEEDS=n seeds from FIRST=seed on, JOBS=n processes'
	@echo '  make sweep-mutants    each rule switched off is found (MUTANT_SEEDS=n)'
	@echo '  make fuzz             MINUTES=n of spoiled frames of every kind'
	@echo '  make soak             MINUTES=n of faults on real processes under load'
	@echo
	@echo 'Measurements'
	@echo '  make bench            every figure beside its floor (BENCH="--cores 2")'
	@echo '  make bench-budget     the longest events of a core'
	@echo '  make bench-handover   SIGTERM of the active node: the longest pause'
	@echo '  make bench-join       a node joins 100 MB while writes go on'
	@echo '  make bench-kill       20 kills of the active node: time to the next write'
	@echo '  make bench-mapping    dict(table), typed values, update, snapshot: next to their floors'
	@echo '  make bench-silence    nodes fall silent: how every client continues'
	@echo '  make bench-takeover   the leader of a table is killed, stopped, cut off, resigns'
	@echo '  make bench-time-outs  calls without an answer, against their time-outs'
	@echo
	@echo 'The rest'
	@echo '  make format | clean   format the code; remove what was made'

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
	$(BIN)/python -m pytest $(SPREAD)

test-extended: $(INSTALLED)
	$(BIN)/python -m pytest $(SPREAD) -m 'extended and not slow'

# What is slow has the machine for itself.
test-all: test test-extended
	$(BIN)/python -m pytest -m slow

test-pythons:
	.ci/test-pythons

smoke:
	.ci/smoke

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check $(FORMATTED)
	$(BIN)/mypy
	$(BIN)/mypy bench examples/demo
	$(BIN)/basedpyright
	$(BIN)/lint-imports

compile-check: $(INSTALLED)
	.ci/compile-check

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format $(FORMATTED)

bench: $(INSTALLED)
	$(BIN)/python -m bench $(BENCH)

bench-time-outs: $(INSTALLED)
	$(BIN)/python -m bench.time_outs

conformance: $(INSTALLED)
	$(BIN)/python -m pytest tests/conformance -m '' --conformance-table docs/conformance.md

bench-kill: $(INSTALLED)
	$(BIN)/python -m bench.kill $(BENCH)

bench-silence: $(INSTALLED)
	$(BIN)/python -m bench.silence $(BENCH)

bench-handover: $(INSTALLED)
	$(BIN)/python -m bench.handover $(BENCH)

bench-join: $(INSTALLED)
	$(BIN)/python -m bench.join $(BENCH)

bench-mapping: $(INSTALLED)
	$(BIN)/python -m bench.mapping $(BENCH)

bench-takeover: $(INSTALLED)
	$(BIN)/python -m bench.takeover $(BENCH)

bench-budget: $(INSTALLED)
	$(BIN)/python -m bench.budget $(BENCH)

soak: $(INSTALLED)
	$(BIN)/python -m bench.soak --minutes $(MINUTES) $(BENCH)

fuzz: $(INSTALLED)
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(if $(FIRST),--first $(FIRST))

sweep: $(INSTALLED)
	$(BIN)/python -m ckptd.sim --sweep $(SEEDS) --first $(FIRST) $(if $(JOBS),--jobs $(JOBS))

sweep-mutants: $(INSTALLED)
	$(BIN)/python -m ckptd.sim --mutants --first $(FIRST) --seeds $(MUTANT_SEEDS) $(if $(JOBS),--jobs $(JOBS))

clean:
	rm -rf $(VENV) .venvs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
