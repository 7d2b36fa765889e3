# On a bare machine with Python 3.11: `make demo` and `make test` are all there is to know.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install servers demo test lint check format bench clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m warehouse.warmup
	touch $@

# Servers that the tests start, beside those that pip brings: Azurite, and nginx, which is Debian's.
servers: tests/servers/node_modules

tests/servers/node_modules: tests/servers/package-lock.json
	npm ci --silent --no-audit --no-fund --prefix tests/servers
	touch $@

demo: install
	$(BIN)/warehouse demo

test: install
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install
	$(BIN)/python -m benchmarks.decode
	$(BIN)/python -m benchmarks.flatten
	$(BIN)/python -m benchmarks.extract

clean:
	rm -rf $(VENV) build dist demo
