# make run    five functions handle real events, here and now
# make test   everything that proves it works
# make check  style, types, warnings
# make bench  how fast, against peers, in one run; make bench-channel the same for the channel alone
# make fault  the long fault runs; each fuzzer runs FUZZ_S seconds
# make model  the channel's waking protocol, every interleaving
# make cross  the channel for arm64, armv7 and armv6; make cross-test: its tests on emulated ones

VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
# pip repeats setuptools' notes about young features at every build: what it says is kept, and shown if it fails.
INSTALL := echo 'installing Headrace and what it needs into $(VENV)' && $(BIN)/python -m pip install --quiet --editable
KEEP   := >$(VENV)/install.log 2>&1 || { cat $(VENV)/install.log >&2; exit 1; }
C_SOURCES := shmem/channel.c shmem/record.c shmem/apart.c
PY_C_SOURCES := shmem/pychannel.c shmem/pygather.c

.PHONY: run test check bench bench-channel fault fault-tools model format clean tools cross cross-test cross-served cross-tools

run: $(VENV)/.demo
	@echo 'five functions, fed by real sources; Ctrl-C ends'
	@$(BIN)/headrace demo

test: $(VENV)/.dev tools
	$(BIN)/python -m pytest

check: $(VENV)/.dev tools
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m tests.support.c_check
	clang-format --dry-run --Werror shmem/*.c shmem/*.h tests/c/*.c tests/c/*.h

bench: $(VENV)/.bench tools
	$(BIN)/python -m tests.bench

bench-channel: $(VENV)/.bench tools
	$(BIN)/python -m tests.bench.channel $(BENCH)

FUZZ_S ?= 600
fault: $(VENV)/.dev tools fault-tools
	HEADRACE_FUZZ_S=$(FUZZ_S) $(BIN)/python -m pytest --timeout=1800 tests/fault

fault-tools:
	@command -v clang >/dev/null || sh tests/support/install_tools.sh clang libclang-rt-dev

model: $(VENV)/.dev tools
	$(BIN)/python -m tests.model.check

cross: $(VENV)/.dev
	$(BIN)/python -m cross.build

cross-test: cross cross-tools
	$(BIN)/python -m cross.run_tests

# The whole project on emulated devices: installs from wheels alone, and a function answers.
cross-served: cross cross-tools
	$(BIN)/python -m cross.wheelhouse
	$(BIN)/python -m cross.served

cross-tools:
	@command -v qemu-arm-static >/dev/null || sh tests/support/install_tools.sh qemu-user-static

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	clang-format -i shmem/*.c shmem/*.h tests/c/*.c tests/c/*.h

# What only tests need and pip cannot give: a broker, a pty pair, a load generator. Quiet when it is all there.
tools:
	@sh tests/support/install_tools.sh

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Headrace needs Python 3.11 or later: make PYTHON=python3.11")'
	@echo 'making the virtual environment $(VENV)'
	@$(PYTHON) -m venv $(VENV) || { sh tests/support/install_tools.sh python3-venv && $(PYTHON) -m venv --clear $(VENV); }
	@$(BIN)/python -m pip install --quiet --upgrade pip $(KEEP)

# Installed editable, so that a change to Python code needs no new install; a change to C does.
$(VENV)/.demo: $(VENV)/bin/python pyproject.toml $(wildcard shmem/*.c shmem/*.h)
	@$(INSTALL) '.[demo]' $(KEEP)
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml $(wildcard shmem/*.c shmem/*.h)
	@$(INSTALL) '.[demo,dev]' $(KEEP)
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: $(VENV)/.dev
	@$(INSTALL) '.[demo,dev,bench]' $(KEEP)
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info shmem/*.so .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
