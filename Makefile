# steadyhook: `make run` shows the main job, `make test` proves it. Both set up all they need.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
NODES  ?= 5
LAYOUT ?= manager
WRITERS ?= 50
# Most of the time of the tests is waiting, so more of them than cores; each has a control plane of its own.
WORKERS ?= 3
export PYTHONPATH := $(CURDIR)/operator:$(CURDIR)/tests

.PHONY: help run cluster test unit pythons check reproduce bench bench-rotation bench-many image constraints clean

help: ## Show this help
	@echo "steadyhook: one certificate for a webhook, issued by one instance, served by all"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | while IFS=$$'\t' read -r name text; do \
		printf '  make %-16s %s\n' "$$name" "$$text"; done
	@echo
	@echo "  Options: NODES=5, LAYOUT=manager|split, ONCE=1 (run: end after the check)"

# A Python that is asked for replaces the one that the tests have used so far.
ifneq ($(origin PYTHON),file)
ifneq ($(shell $(BIN)/python -V 2>/dev/null),$(shell $(PYTHON) -V 2>/dev/null))
.PHONY: $(STAMP)
endif
endif

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing; install Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is not usable: $$($(PYTHON) -V 2>&1 | head -1), expected Python 3.11 or newer; say PYTHON=..."; exit 1; }
	@echo "Setting up $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: $(STAMP) ## Start a real control plane and show the main job; ONCE=1 ends after the check
	@$(BIN)/python -m demo --nodes $(NODES) --layout $(LAYOUT) $(if $(ONCE),--once)

cluster: $(STAMP) ## Start the development cluster alone and keep it up, for kubectl
	@$(BIN)/python -m devcluster --nodes $(NODES)

test: $(STAMP) ## Run every test; builds the control plane the first time
	@$(BIN)/python -m devcluster.binaries
	@$(BIN)/python -m peers
	@$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder

unit: $(STAMP) ## Run the tests that need no cluster
	@$(BIN)/python -m pytest -m "not cluster"

pythons: $(STAMP) ## Run the tests that need no cluster on every supported Python of this machine
	@$(BIN)/python -m pythons

check: $(STAMP) ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check operator tests
	@$(BIN)/mypy
	@$(BIN)/lint-imports

reproduce: $(STAMP) ## Make the storm on a development cluster, in figures (WRITERS=50)
	@$(BIN)/python -m devcluster --nodes 0 $(BIN)/steadyhook reproduce --writers $(WRITERS)

bench: $(STAMP) ## Measure the figures in the README
	@$(BIN)/python -m benchmarks

bench-rotation: $(STAMP) ## Rotate under load: requests and handshakes, sent and failed (10 minutes)
	@$(BIN)/python -m benchmarks.rotation

bench-many: $(STAMP) ## Measure one installation of issuers for 100 and 500 certificates (15 minutes)
	@$(BIN)/python -m benchmarks.many

image: ## Build the container image
	docker build --tag steadyhook:0.1.0 .

constraints: ## Write constraints.txt anew from the newest versions
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV) && $(BIN)/pip install --quiet --editable '.[dev]'
	@{ echo '# The versions that the tests ran with; `make constraints` writes this file anew.'; \
		$(BIN)/pip freeze --exclude-editable; } > constraints.txt
	@touch $(STAMP)

clean: ## Remove what was set up here (the control plane's cache stays)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
