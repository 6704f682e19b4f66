# A clone needs Python 3.11 or newer, and one of these:
#   make chat    set everything up and open the chat
#   make test    set everything up and run all tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Processes that the tests share; a file's tests stay in one of them.
WORKERS ?= 2
INTEROP := .interop
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help chat test faults interop check format bench screenshots system clean

help:
	@echo "make chat         set everything up and open the chat in the browser"
	@echo "make test         set everything up and run all tests"
	@echo "make faults       the tests with killed processes and broken engines, many more rounds of them"
	@echo "make interop      Transformers, vLLM and llama-server, installed apart (5 GB), against Cierzo's engines"
	@echo "make check        format, lint, strict types, import floors"
	@echo "make format       put the code into the project's format"
	@echo "make bench        the speed figures, as ratios measured in one run"
	@echo "make screenshots  the pictures in docs/images"
	@echo "make clean        remove the virtual environment and the caches"

chat: $(VENV)/.installed
	$(BIN)/cierzo $(ARGS)

test: $(VENV)/.dev system
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

faults: $(VENV)/.dev system
	CIERZO_FAULT_ROUNDS=100 CIERZO_KILL_ROUNDS=50 CIERZO_RESTART_ROUNDS=20 CIERZO_TAB_STEPS=10000 \
	  CIERZO_SEQUENCES=500 CIERZO_EVERY_BYTE=1 CIERZO_HUGE=1 CIERZO_EXAMPLES=100 $(BIN)/python -m pytest -s tests/contract/test_faults.py \
	  tests/contract/test_kills.py tests/contract/test_sequences.py tests/contract/test_tabs.py \
	  tests/contract/test_transfer_stores.py tests/test_replies.py tests/test_killed_downloads.py \
	  tests/api/test_engine_faults.py tests/api/test_following.py tests/api/test_schema.py \
	  tests/terminal/test_shown_faults.py tests/browser/test_hostile_page.py $(ARGS)

# ARGS=--record writes the recorded answers in tests/data/recorded anew.
interop: $(VENV)/.dev $(INTEROP)/transformers/.installed $(INTEROP)/vllm/.installed
	$(BIN)/python interop/export.py src/cierzo/models/cierzo-demo.gguf $(INTEROP)/cierzo-demo
	$(BIN)/python interop/answers.py $(INTEROP)/answers.json
	HF_HUB_OFFLINE=1 $(INTEROP)/transformers/bin/python interop/generate.py $(INTEROP)/cierzo-demo $(INTEROP)/answers.json
	$(BIN)/python interop/check.py llama-server
	$(BIN)/python interop/check.py transformers $(ARGS)
	$(BIN)/python interop/check.py vllm $(ARGS)

$(INTEROP)/%/.installed: interop/%.txt
	test -x $(INTEROP)/$*/bin/python || $(PYTHON) -m venv $(INTEROP)/$*
	$(INTEROP)/$*/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --requirement $<
	touch $@

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_house.py

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/prefix.py
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/conversations.py
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/engines.py
	$(BIN)/python benchmarks/page.py

screenshots: $(VENV)/.dev system
	$(BIN)/python docs/screenshots.py

# The browser and the database that some tests need. Where they cannot be installed those tests are skipped, by name.
system:
	@if ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql; \
	else echo "no PostgreSQL here: the tests on it will be skipped (install Debian's package postgresql)"; fi
	@if command -v chromium >/dev/null || [ -n "$$CIERZO_CHROMIUM" ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    chromium fonts-dejavu-core fonts-noto-color-emoji; \
	else echo "no chromium here: the browser tests will be skipped (install it, or set CIERZO_CHROMIUM)"; fi

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Cierzo needs Python 3.11 or newer: make PYTHON=python3.12 chat")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade "pip>=25.1"
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) install --quiet --constraint constraints.txt --group dev
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
