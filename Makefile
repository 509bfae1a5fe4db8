# `make` lists what can be done. Everything runs in .venv, which the first command makes.

.DEFAULT_GOAL := help
.PHONY: help dev test test-clients check bench soak web lock clean venv

PYTHON ?= python3
VENV := .venv/bin

# A Python that was named is used or refused; otherwise the usual names are tried in turn.
ifeq ($(origin PYTHON),file)
PYTHONS := $(PYTHON) python3.14 python3.13 python3.12 python3.11
else
PYTHONS := $(PYTHON)
endif

find_python = found=; for python in $(PYTHONS) ""; do \
	version=$$("$$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || continue; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	found="$$found, $$python is $$version"; python=; \
	done; \
	if [ -z "$$python" ]; then \
	echo "megatron: Python 3.11 or newer is needed (tried $(PYTHONS)$$found): install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
	exit 1; fi;

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

dev: ## run the market here: servers, demo market, API, playground; Ctrl-C stops all of it
	@$(find_python) exec "$$python" -m app.local.bootstrap dev

venv: # make .venv what requirements.lock says
	@$(find_python) exec "$$python" -m app.local.bootstrap install

test: check ## what CI runs: make check, then every test that needs no Node.js and no long run
	$(VENV)/python -m pytest -m "not clients and not soak"

test-clients: venv web ## the tests that need Node.js or a browser
	$(VENV)/python -m app.local.node install-clients
	$(VENV)/python -m pytest -m clients -rs

check: venv ## lint, formatting, strict types, import contracts
	$(VENV)/ruff check
	$(VENV)/ruff format --check
	$(VENV)/mypy
	$(VENV)/lint-imports

bench: venv ## the measurements
	$(VENV)/python -m benchmarks

soak: venv ## the long fault and load runs
	$(VENV)/python -m pytest -m soak --timeout=1800 -vv -s

web: venv ## build the playground into web/dist
	@exec $(VENV)/python -m app.local.bootstrap web

lock: ## compile requirements.lock from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header -q -o requirements.lock

clean: ## remove what can be made again; the market's data in .data stay
	rm -rf .venv web/dist web/node_modules build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path ./.data -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
