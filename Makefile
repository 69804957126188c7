# Everything a developer runs. `make` alone lists it; each target makes the virtual environment first where it needs one.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
DEMO := $(VENV)/.demo
UV := .uv/uv
INSTALL := PYTHON="$(PYTHON)" UV=$(UV) tools/install
# The first interpreter that is new enough and really starts (a version manager's shim may not).
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 /usr/bin/python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
ARGS ?=
SERVICE := $(CURDIR)/$(VENV)/service/bin/python
NEWER_MONGOD := $(CURDIR)/$(VENV)/mongod-6.0.27/bin/mongod
OLD_NATS := $(CURDIR)/$(VENV)/nats-2.11/bin/nats-server
PROMTOOL := $(CURDIR)/$(VENV)/promtool/usr/bin/promtool
LINTERS := $(CURDIR)/$(VENV)/linters
HELM := $(LINTERS)/go/helm
ACTIONLINT := $(LINTERS)/go/actionlint

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long coverage test-fast test-contract properties screenshots faults faults-full soak mutants check fuzz format bench bench-docs openapi docs examples wheel lock clean

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-13s %s\n' "$$name" "$$text"; done
	@echo 'Arguments go in ARGS: make test ARGS="-k capture -x", make demo ARGS="--watchers 50"'

setup: $(STAMP) ## The virtual environment in .venv, from uv.lock (done once; most other targets call it)

# What Python and mongod need of the system; installed where that is possible, else told.
define SYSTEM
python="$(PYTHON)"; missing=""; \
if [ -z "$$python" ]; then missing="python3 python3-venv"; \
elif ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	missing="python$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"; fi; \
if [ "$$(uname -sm)" = "Linux x86_64" ]; then \
	ldconfig=$$(command -v ldconfig || echo /sbin/ldconfig); \
	"$$ldconfig" -p 2>/dev/null | grep -q 'libcurl\.so\.4 ' || missing="$$missing libcurl4"; fi; \
if [ -n "$$missing" ]; then \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing $$missing"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null || exit 1; \
	elif command -v apt-get >/dev/null; then \
		echo "Changewire needs packages of the system. Run: sudo apt-get install $$missing" >&2; exit 1; \
	else \
		echo "Changewire needs Python 3.11 or later with its venv module, and libcurl.so.4; missing here (names as in Debian): $$missing" >&2; exit 1; \
	fi; \
fi
endef

.uv/system:
	@$(SYSTEM)
	@mkdir -p $(@D) && touch $@

# The native transcoder is built where there is a cargo. Whatever is wrong with it, the Python encoder does its work.
NATIVE := app/_native.abi3.so
CARGO := cd native && cargo
NATIVE_SOURCES := native/Cargo.toml native/Cargo.lock $(wildcard native/src/*.rs)

# What is set up comes from uv.lock, by the one uv that requirements-uv.lock pins: any pip can install that, and nothing
# is resolved. The rename comes last, so what is there is whole.
$(UV): requirements-uv.lock | .uv/system
	@test -n "$(PYTHON)" || { echo "Changewire needs Python 3.11 or later; name it: make setup PYTHON=/path/to/python" >&2; exit 1; }
	@echo "fetching uv, which sets up everything else"
	@new=$$(mktemp -d $(@D)/new.XXXXXX) && trap 'rm -rf "$$new"' EXIT \
		&& "$(PYTHON)" -m venv "$$new" \
		&& "$$new/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $< \
		&& touch "$$new/bin/uv" && mv "$$new/bin/uv" $@

# The demo needs no more than the service and its servers: no tool of a developer, no compiler. Python encodes, unless a
# `make setup` before has built the native transcoder and its sources have not changed since.
$(DEMO): uv.lock tools/install $(UV)
	@echo "setting up $(VENV) for the demo: some seconds, 60 MB the first time"
	@$(INSTALL) demo $(VENV)
	@touch $@

$(STAMP): uv.lock pyproject.toml tools/install $(NATIVE_SOURCES) $(UV)
	@echo "setting up $(VENV)$$(command -v cargo >/dev/null && echo ", with the native transcoder: about a minute the first time")"
	@rm -f $(NATIVE)
	@$(INSTALL) all $(VENV)
	@test -e $(NATIVE) || echo "The native transcoder was not built ($$(cargo --version 2>/dev/null || echo no cargo here)): Python encodes."
	@touch $(DEMO) $@

demo: $(DEMO) ## A real mongod and nats-server, the service, a watcher and a writer; Ctrl-C stops all of it
	@if [ ! -e $(STAMP) ] || [ -n "$$(find $(NATIVE_SOURCES) -newer $(STAMP))" ]; then rm -f $(NATIVE); fi
	@$(BIN)/python -m app demo $(ARGS)

# The tests of the page drive Debian's Chromium. Without one they are skipped, and say so.
define BROWSER
if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing chromium"; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
			echo "chromium cannot be installed: the tests of the page are skipped" >&2; \
	else \
		echo "there is no chromium: the tests of the page are skipped" >&2; \
	fi; \
fi
endef

# The servers of some tests: each test that needs one is skipped without it.
SERVERS := CHANGEWIRE_TEST_NATS_211=$(OLD_NATS) CHANGEWIRE_TEST_MONGOD_NEWER=$(NEWER_MONGOD) CHANGEWIRE_TEST_PROMTOOL=$(PROMTOOL) \
	CHANGEWIRE_TEST_LINTERS=$(LINTERS)
# Most tests wait for servers: two processes more than there are processors, four at most; each has servers of its own. A
# process gets one test at a time, the long ones first (`tests/conftest.py`), so that none works alone at the end.
PARALLEL := --numprocesses $(shell expr $$(getconf _NPROCESSORS_ONLN) + 2) --maxprocesses 4 --dist load --maxschedchunk 1
SUITE := $(STAMP) $(OLD_NATS) $(NEWER_MONGOD) $(PROMTOOL) $(LINTERS)/.stamp $(ACTIONLINT) $(HELM)
PYTEST := $(SERVERS) $(BIN)/python -m pytest $(PARALLEL)

test: $(SUITE) ## The suite, but for what is marked as long: nine minutes
	@$(BROWSER)
	@if [ -e $(NATIVE) ]; then $(CARGO) test --quiet --locked; fi
	@$(PYTEST) -m "not long" $(ARGS)

test-long: $(SUITE) ## The rest of it: faults, the page in depth, the bench on a small scale, wide tables of cases
	@$(BROWSER)
	@$(PYTEST) --maxprocesses 2 --timeout 300 -m long $(ARGS)  # each keeps more than one processor busy for a while

coverage: $(SUITE) ## All of it, measured: at least 90 % have to be run; about half an hour
	@$(BROWSER)
	@$(PYTEST) --cov --cov-report=term --cov-fail-under=90 $(ARGS)

test-fast: $(STAMP) ## Unit tests and properties: no server, about a minute
	@$(BIN)/python -m pytest tests/unit tests/properties $(PARALLEL) $(ARGS)

test-contract: $(STAMP) $(OLD_NATS) $(NEWER_MONGOD) ## What the adapters promise, on real servers: about three minutes
	@$(SERVERS) $(BIN)/python -m pytest tests/contract tests/integration/mongodb tests/integration/jetstream $(PARALLEL) $(ARGS)

properties: $(STAMP) ## The properties on thousands of examples each
	@HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest tests/properties $(PARALLEL) --timeout 3600 $(ARGS)

# A server without atomic batches, for the tests of the fallback.
$(OLD_NATS): requirements-old-nats.lock | $(STAMP)
	@rm -rf $(VENV)/nats-2.11
	@$(INSTALL) files $(VENV)/nats-2.11 $<
	@touch $@

# A mongod that splits large events. It finds the OpenSSL that it was built for in another wheel, of CPython 3.11 whatever
# runs here: only its libraries are taken.
$(NEWER_MONGOD): requirements-newer-mongod.lock | $(STAMP)
	@rm -rf $(VENV)/mongod-6.0.27
	@$(INSTALL) files $(VENV)/mongod-6.0.27 $< --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_31
	@cd $(VENV)/mongod-6.0.27 && mkdir -p bin lib && chmod +x fiftyone/db/bin/mongod \
		&& for name in ssl crypto; do for file in psycopg2_binary.libs/lib$$name-*.so.1.1; do \
			ln -sf "../$$file" "lib/lib$$name.so.1.1"; ln -sf "../$$file" lib/; done; done \
		&& printf '#!/bin/sh\nhere="$$(dirname "$$0")/.."\nLD_LIBRARY_PATH="$$here/lib" exec "$$here/fiftyone/db/bin/mongod" "$$@"\n' > bin/new \
		&& chmod +x bin/new && mv bin/new bin/mongod

# Checks the alerts: out of Debian's package, which is unpacked only, since to install it would start a server. Where there
# is none, those tests are skipped, and say so.
$(PROMTOOL): | $(STAMP)
	@rm -rf $(VENV)/promtool && mkdir -p $(@D)
	@if command -v promtool >/dev/null; then ln -s "$$(command -v promtool)" $@; \
	elif command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then \
		echo "fetching promtool"; cd $(VENV)/promtool; \
		apt-get download -qq prometheus 2>/dev/null \
			|| { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get download -qq prometheus 2>/dev/null; } || true; \
		for package in prometheus_*.deb; do dpkg-deb -x "$$package" . 2>/dev/null; done; rm -f prometheus_*.deb usr/bin/prometheus; \
	fi
	@test -x $@ || echo "promtool is unavailable: the alerts are not checked"

# Check the Dockerfile, the workflows and the chart. Go builds two of them from its module proxy, at these versions and the
# hashes of its checksum database. Without Go those tests are skipped, and say so.
$(LINTERS)/.stamp: requirements-lint.lock | $(STAMP)
	@$(INSTALL) files $(LINTERS) $<
	@touch $@

$(ACTIONLINT) $(HELM): | $(STAMP)
	@mkdir -p $(@D); command -v go >/dev/null || { echo "go is unavailable: $(@F) is not built, and its tests are skipped"; exit 0; }; \
	echo "building $(@F)"; GOBIN=$(@D) GOFLAGS= go install \
		$(if $(findstring helm,$@),helm.sh/helm/v3/cmd/helm@v3.22.0,github.com/rhysd/actionlint/cmd/actionlint@v1.7.12) 2>$(LINTERS)/$(@F).log \
		|| echo "$(@F) was not built ($(LINTERS)/$(@F).log): its tests are skipped"

screenshots: $(STAMP) ## Take the pictures of the page in docs/images again
	@$(BROWSER)
	@mkdir -p docs/images
	@PAGE_SCREENSHOTS=docs/images $(BIN)/python -m pytest tests/browser $(ARGS)

# NEWER=1 takes the mongod that splits large events for the one of all other tests.
MONGOD := $(if $(NEWER),$(NEWER_MONGOD))
FAULTS := $(BIN)/python -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(NEWER),--mongod $(NEWER_MONGOD))

faults: $(STAMP) $(MONGOD) ## Break everything it depends on, under load, then verify: ten minutes (SEED=n replays; NEWER=1; ARGS="--all", "--only zombie")
	@$(FAULTS) $(ARGS)

faults-full: $(STAMP) $(MONGOD) ## The same with 350 faults over 500,000 changes: an hour and a half (SEED=n, ARGS="--json run.json")
	@$(FAULTS) --full $(ARGS)

soak: $(STAMP) $(MONGOD) ## The same for as long as asked: MINUTES=600
	@test -n "$(MINUTES)" || { echo 'How long? make soak MINUTES=600' >&2; exit 2; }
	@$(FAULTS) --minutes $(MINUTES) $(ARGS)

mutants: $(STAMP) $(MONGOD) ## Break the protocol on purpose in twenty-one places, and check that faults or tests show it
	@$(BIN)/python -m tests.faults.mutants $(if $(NEWER),--mongod $(NEWER_MONGOD)) $(ARGS)

check: $(STAMP) ## Lint, format, spelling, types, import rules; of native/ too where cargo is there
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if [ ! -e $(NATIVE) ]; then echo "native/ was not built here, and is not checked"; \
	else $(CARGO) fmt --check && cargo clippy --quiet --locked --all-targets --features python -- -D warnings; fi

fuzz: ## The native transcoder on any bytes, ten minutes; needs cargo-fuzz and a nightly toolchain
	$(CARGO) +nightly fuzz run encode -- -max_total_time=600 $(ARGS)

format: $(STAMP) ## Format the code and apply the safe fixes
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .
	@if [ -e $(NATIVE) ]; then $(CARGO) fmt; fi

# What the service needs and nothing else, as an installation has it: what the bench runs.
$(SERVICE): uv.lock | $(STAMP)
	@$(INSTALL) service $(VENV)/service
	@touch $@

bench: $(STAMP) $(SERVICE) ## Throughput and latency
	@$(SERVICE) -m compileall -q app bench
	@BENCH_SERVICE_PYTHON=$(SERVICE) $(BIN)/python -m bench $(ARGS)

RESULTS ?= bench/results/latest.json

bench-docs: $(STAMP) ## Tables and images of docs/performance.md from the last run (RESULTS=run.json: from another)
	@$(BIN)/python -m bench.write_docs $(RESULTS)

openapi: $(STAMP) ## Write openapi.json from the application
	@$(BIN)/changewire openapi > openapi.json.new
	@mv openapi.json.new openapi.json

examples: $(STAMP) ## Run the programs under examples/, those in Go too: up to a minute the first time
	@CHANGEWIRE_TEST_GO=1 $(BIN)/python -m pytest tests/integration/project/test_examples.py tests/integration/project/test_copies.py $(ARGS)

docs: $(STAMP) ## Write what comes from the code: the tables in docs/, .env.example, the chart's schema, the operator's alerts
	@$(BIN)/python -m tests.docs_reference

wheel: $(UV) ## What a release publishes, into dist/: built, installed elsewhere and tried (ARGS=manylinux_2_28_x86_64: has to deserve that tag)
	@PYTHON="$(PYTHON)" UV=$(UV) tools/wheel dist $(ARGS)

UPGRADE ?= --upgrade
LOCK := $(UV) lock --no-config --default-index https://pypi.org/simple
LOCK_UV := $(UV) pip compile - --no-config --default-index https://pypi.org/simple --quiet --generate-hashes \
	--no-annotate --no-header --no-emit-index-url --no-emit-find-links

lock: $(UV) ## Update uv.lock, and the uv that installs it, to the newest versions; UPGRADE= keeps what is locked
	@$(LOCK) $(UPGRADE)
	@test -z "$(UPGRADE)" || { { sed -n '/^#/p' requirements-uv.lock; echo uv | $(LOCK_UV); } > .uv/new.lock && mv .uv/new.lock requirements-uv.lock; }

clean: ## Remove what was made, the virtual environment included
	rm -rf $(VENV) .uv $(NATIVE) native/target native/fuzz/target build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis htmlcov .coverage .coverage.* openapi.json.new
	find app tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
