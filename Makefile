# Each target sets up whatever it needs: a virtual environment in .venv, pinned dependencies, then the job.
PYTHON ?= python3
BIN := .venv/bin
SHOP := demo-shop
ROOT := overnight-data
STAMP := .venv/installed

.PHONY: help install demo test lint format serve clean

help: ## what can be made
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## .venv with everything

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v in ((3, 11), (3, 12)) or sys.exit("Overnight needs Python 3.11 or 3.12, this is %d.%d; try make PYTHON=python3.11" % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,nvtabular]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt nvtabular merlin-core merlin-dataloader
	@touch $(STAMP)

demo: $(STAMP) ## simulate a shop, run a night on it, show what came out
	@$(BIN)/overnight simulate --out $(SHOP)
	@$(BIN)/overnight retrain --dataset demo --source $(SHOP) --root $(ROOT)

test: $(STAMP) ## run the tests
	@$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP) ## style, types, imports between rooms, spelling
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/codespell

format: $(STAMP) ## rewrite the code in the common style
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

serve: $(STAMP) ## Prefect server, worker and nightly deployment on this machine, until Ctrl-C
	@test -d $(SHOP) || $(BIN)/overnight simulate --out $(SHOP)
	@$(BIN)/overnight serve --root $(ROOT) --source $${OVERNIGHT_SOURCE:-$(SHOP)}

clean: ## remove the environment, the demo shop and its artifacts
	rm -rf .venv $(SHOP) $(ROOT)
