# Everything here needs Python 3.11 to 3.13, make and a package registry, and nothing else.
# Versions and hashes of all that is installed stand in requirements/; `make lock` renews them.
#
#   ARGS=...    handed to the program:            make test ARGS="tests/unit -x"
#   PYTHON=...  the interpreter to build with:    make test PYTHON=python3.13
#   VENV=...    another folder than .venv:        make test PYTHON=python3.13 VENV=.venv.313

SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

VENV ?= .venv
ARGS ?=
PYTHON ?=
UV_VERSION := 0.13.9

BIN := $(VENV)/bin
PY := $(BIN)/python
# A user's own Python settings must not leak into the project's environment.
unexport PYTHONHOME PYTHONPATH

# True if the environment can be used as it is: finished, not moved since (the scripts in it hold the
# folder's full name), its interpreter still there, and of the version asked for, if one was.
venv_ok := $(shell \
	[ ! -e $(VENV)/.unfinished ] && \
	[ "$$(cat $(VENV)/.made 2>/dev/null)" = "$(CURDIR)" ] && \
	$(PY) -c '' 2>/dev/null && \
	{ [ -z "$(PYTHON)" ] || \
	  [ "$$($(PYTHON) -c 'import sys; print(sys.version)')" = "$$($(PY) -c 'import sys; print(sys.version)')" ]; } && \
	echo yes)
ifneq ($(venv_ok),yes)
.PHONY: $(VENV)/.made
endif

# A candidate is run, not only looked up: a pyenv shim is on the path and fails when called.
$(VENV)/.made:
	@found= bare=; \
	for candidate in $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python); do \
	  "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || continue; \
	  if "$$candidate" -c 'import ensurepip, venv' 2>/dev/null; then found=$$candidate; break; fi; \
	  bare=$${bare:-$$candidate}; \
	done; \
	if [ -z "$$found" ] && [ -n "$$bare" ]; then \
	  echo "$$bare cannot make a virtual environment (no ensurepip). On Debian or Ubuntu: apt install $$("$$bare" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2; exit 1; \
	elif [ -z "$$found" ]; then \
	  echo "No usable $(or $(PYTHON),Python) found: Python 3.11, 3.12 or 3.13 is needed. Install one, or name it: make PYTHON=/path/to/python3.13 $(MAKECMDGOALS)" >&2; exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" -c 'import platform, sys; print("Python", platform.python_version(), "from", sys.executable)')"; \
	rm -rf $(VENV) && "$$found" -m venv $(VENV) && printf '%s\n' "$(CURDIR)" > $@

# $(call install,<lock>,<what it is for>,<size>): an interrupted pip can leave a package that looks
# installed and is not, so a run that finds .unfinished starts the environment anew (pip's cache helps).
define install
	@echo "Installing what $(2) needs into $(VENV) (on a new machine about $(3) to download)"; \
	touch $(VENV)/.unfinished && set -o pipefail && \
	$(PY) -m pip install --disable-pip-version-check --progress-bar off --require-hashes \
	  -r requirements/build.txt -r requirements/$(1).txt \
	  | awk '/^Collecting /{print "  " $$2; fflush()} /Downloading .* MB/{print "    " $$(NF-1), $$NF; fflush()} /^Installing /{print "  unpacking ..."; fflush()}' && \
	$(PY) -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable . && \
	rm -f $(VENV)/.unfinished
endef

# Each lock holds the one above it, so one environment serves all.
$(VENV)/.embedded: $(VENV)/.made pyproject.toml requirements/build.txt requirements/embedded.txt
	$(call install,embedded,the demo,150 MB)
	@touch $@

$(VENV)/.test: $(VENV)/.made pyproject.toml requirements/build.txt requirements/test.txt
	$(call install,test,the test suite,150 MB)
	@touch $(VENV)/.embedded $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml requirements/build.txt requirements/dev.txt
	$(call install,dev,development,250 MB)
	@touch $(VENV)/.embedded $(VENV)/.test $@

##@ See it
.PHONY: help demo stack
help: ## List these targets
	@echo "Usage: make <target> [ARGS=...]"
	@awk 'BEGIN {FS = ":.*## "} /^##@ /{printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.embedded ## The whole engine on real Kafka, Valkey and PostgreSQL; needs no Docker
	@exec $(BIN)/pod-automation demo $(ARGS)

stack: $(VENV)/.embedded ## Kafka, Valkey and PostgreSQL in the foreground, to develop against
	@exec $(BIN)/pod-automation stack $(ARGS)

##@ Develop
.PHONY: test check docs format fuzz bench bench-quick torture nightly
# Most of a test is waiting for servers. Each of the two processes starts servers of its own, and takes
# whole files, which share what is dear to make.
test: $(VENV)/.test ## Run the tests, e.g. make test ARGS="tests/unit -x"
	@exec $(PY) -m pytest --numprocesses 2 --dist loadfile $(ARGS)

torture: $(VENV)/.test ## Kill everything, count everything, e.g. make torture ARGS="--rounds 22 --seed 7"
	@exec $(PY) -m tests.torture $(ARGS)

check: $(VENV)/.dev ## Format, lint, types, import rules, freshness of generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PY) -m schemas.generate --check
	$(PY) -m scheduler.settings_reference --check
	$(PY) -m pod_automation.metrics.reference --check
	$(PY) -m pytest -qq tests/unit/test_import_rules.py
	$(BIN)/zensical build --strict
	@if docker compose version >/dev/null 2>&1; then echo "docker compose config -q"; exec docker compose config -q; \
	else echo "docker-compose.yml not checked: no docker compose on this machine"; fi

docs: $(VENV)/.dev ## The documentation as a site, in site/
	@$(BIN)/zensical build --strict && echo "open site/index.html"

format: $(VENV)/.dev ## Format the code and apply the safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Another seed each night; a failure prints it, and FUZZ_SEED=... makes the same records again.
fuzz: $(VENV)/.test ## Bad input at scale: 100,000 records of any kind, on real parts too
	@export FUZZ_RECORDS=$${FUZZ_RECORDS:-100000} FUZZ_SEED=$${FUZZ_SEED:-$$RANDOM$$RANDOM}; \
	echo "FUZZ_RECORDS=$$FUZZ_RECORDS FUZZ_SEED=$$FUZZ_SEED"; exec $(PY) -m pytest tests/fuzz $(ARGS)

nightly: $(VENV)/.test ## What is too long for each run: the long tests, 100,000 records of fuzz, 22 rounds of torture
	$(PY) -m pytest -m nightly
	$(MAKE) --no-print-directory fuzz
	$(PY) -m tests.torture --rounds 22 --seed $$(date +%j)

bench: $(VENV)/.dev ## Measure all, beside every peer that can be had here; 100 minutes
	@exec $(PY) -m bench $(ARGS)

bench-quick: $(VENV)/.dev ## Has a change made it slower? Under three minutes
	@exec $(PY) -m bench.guard $(ARGS)

##@ Release
.PHONY: build wheel-check lock clean
build: $(VENV)/.test ## Build the wheel and the source archive into dist/
	$(PY) -m build --no-isolation

wheel-check: $(VENV)/.test ## Build the wheel, install it alone in a new environment, run it
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	$(PY) -m build --wheel --no-isolation --outdir "$$tmp/dist" . >/dev/null; \
	$(PY) -m venv "$$tmp/venv"; \
	echo "Installing the wheel and its locked dependencies into an empty environment"; \
	"$$tmp/venv/bin/python" -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements/runtime.txt; \
	"$$tmp/venv/bin/python" -m pip install --disable-pip-version-check --quiet --no-deps "$$tmp"/dist/*.whl; \
	"$$tmp/venv/bin/python" -m pip check; \
	mkdir "$$tmp/empty"; cd "$$tmp/empty"; \
	"$$tmp/venv/bin/pod-automation" --version; \
	"$$tmp/venv/bin/pod-automation" --help

# One resolution for all platforms and for Python 3.11 to 3.13, then a part of it for each use.
# Versions already locked are kept; make lock ARGS=--upgrade takes the newest. No registry is written down.
lock: $(VENV)/.made ## Renew requirements/*.txt, e.g. make lock ARGS=--upgrade
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	$(PY) -m venv "$$tmp/venv"; \
	"$$tmp/venv/bin/python" -m pip install --disable-pip-version-check --quiet uv==$(UV_VERSION); \
	compile() { \
	  env -u UV_FIND_LINKS "$$tmp/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 \
	    --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
	    --custom-compile-command "make lock" "$$@"; \
	}; \
	if [ -e requirements/dev.txt ]; then cp requirements/dev.txt "$$tmp/all.txt"; fi; \
	compile --all-extras pyproject.toml requirements/build.in --output-file "$$tmp/all.txt" $(ARGS); \
	cp "$$tmp/all.txt" requirements/dev.txt; \
	part() { out=requirements/$$1.txt; shift; rm -f "$$out"; compile "$$@" --constraints "$$tmp/all.txt" --output-file "$$out"; }; \
	part build requirements/build.in; \
	part runtime --extra api --extra traces pyproject.toml; \
	part embedded --extra api --extra traces --extra embedded pyproject.toml; \
	part test --extra api --extra traces --extra embedded --extra test pyproject.toml; \
	echo "requirements/: $$(grep -c == requirements/dev.txt) packages locked"

clean: ## Remove what was built, caches and the environment (not the data of make stack)
	rm -rf build dist $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find schemas scheduler streams pod_automation tests -name __pycache__ -type d -prune -exec rm -rf {} +
