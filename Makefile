# Two commands for a fresh machine: `make serve` and `make test`. They need Python 3.11+ (and Node for `make test`).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := .make

.PHONY: serve test lint bench bench-embedded bench-gateway bench-responses bench-inside conformance docs lock clean

serve: $(STAMP)/serve
	$(BIN)/coterie serve $(ARGS)

test: $(STAMP)/test $(STAMP)/js lint
	$(BIN)/coterie models pull --quiet
	$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m coterie.cli.docs --check docs

# ARGS are for one of the three.
bench: bench-embedded bench-gateway bench-responses

bench-embedded: $(STAMP)/test
	$(BIN)/coterie models pull --quiet
	$(BIN)/python bench/embedded.py $(ARGS)

# Installs the gateways to compare with into .bench/, at the first run.
bench-gateway: $(STAMP)/test
	$(BIN)/python -m bench.gateway $(ARGS)

bench-responses: $(STAMP)/test
	$(BIN)/python -m bench.responses $(ARGS)

# What a request costs without the kernel, and where: for whoever works on the server, in half a minute.
bench-inside: $(STAMP)/test
	$(BIN)/python -m bench.inside $(ARGS)

# Judges this server, llama.cpp's and LiteLLM (installed into .bench/ at the first run); writes docs/conformance.md.
conformance: $(STAMP)/test
	$(BIN)/coterie models pull --quiet
	$(BIN)/python -m bench.conformance $(ARGS)

docs: $(STAMP)/test
	$(BIN)/python -m coterie.cli.docs docs

# Written for every platform and Python at once; names no host. What is served is what was tested.
lock: $(STAMP)/test
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate --extra build --extra test pyproject.toml --output-file requirements/test.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate --extra build --constraint requirements/test.lock pyproject.toml --output-file requirements/serve.lock

clean:
	rm -rf $(VENV) $(STAMP) tests/js/node_modules

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Coterie needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(STAMP)/serve: $(BIN)/python requirements/serve.lock pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/serve.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@mkdir -p $(STAMP) && touch $@

$(STAMP)/test: $(STAMP)/serve requirements/test.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/test.lock
	@mkdir -p $(STAMP) && touch $@

$(STAMP)/js: tests/js/package.json tests/js/package-lock.json
	cd tests/js && npm ci --silent --no-audit --no-fund
	@mkdir -p $(STAMP) && touch $@
