# Each target sets up whatever it needs: a virtual environment in .venv, pinned dependencies, then the job.
PYTHON ?= python3
BIN := .venv/bin
SHOP := demo-shop
ROOT := overnight-data
SIMULATE :=
STAMP := .venv/installed

.PHONY: audit help install demo test month gpu-plans image lint format serve clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## .venv with everything

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v in ((3, 11), (3, 12)) or sys.exit("Overnight needs Python 3.11 or 3.12, this is %d.%d; try make PYTHON=python3.11" % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,mlflow,nvtabular]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt nvtabular merlin-core merlin-dataloader
	@touch $(STAMP)

demo: $(STAMP) ## simulate a shop, run a night on it, show what came out
	@$(BIN)/overnight simulate --out $(SHOP) $(SIMULATE)
	@$(BIN)/overnight retrain --dataset demo --source $(SHOP) --root $(ROOT)

# Three processes for two cores: a test that waits for a server leaves its core to another. What is compiled once is kept.
test: $(STAMP) ## run the tests; with OVERNIGHT_SLOW=1 those, too, that take long and seldom find more
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

month: $(STAMP) ## 30 simulated nights with what happens to sources and machines; docs/month.md
	@$(BIN)/python benchmarks/month.py

# The translator comes with 450 MB of libraries for GPUs, so it has an environment of its own. It needs no GPU.
GPU_STAMP := .venv-gpu/installed
CUDF := cudf-polars-cu13 pylibcudf-cu13 libcudf-cu13 rmm-cu13 librmm-cu13 kvikio-cu13 libkvikio-cu13 nvidia-libnvcomp-cu13 \
  rapids-logger nvtx nvidia-ml-py cuda-bindings cuda-pathfinder nvidia-cufile nvidia-nvjitlink nvidia-cuda-nvrtc

gpu-plans: $(GPU_STAMP) ## whether a GPU would run every step, rule and encoder
	@.venv-gpu/bin/python -m pytest -q -m gpu_plans --noconftest -p no:cacheprovider $$(grep -rl gpu_plans tests --include=*.py)

$(GPU_STAMP): constraints.txt docker/constraints-gpu.txt
	@test -x .venv-gpu/bin/python || $(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt polars pyarrow pydantic pyyaml numpy \
	  tzdata fsspec jinja2 packaging sqlglot pytest hypothesis
	.venv-gpu/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -c docker/constraints-gpu.txt $(CUDF)
	@touch $(GPU_STAMP)

image: $(STAMP) ## build the image and run compose.yaml's services by buildah; as root, needs buildah and debootstrap
	@$(BIN)/python docker/try_image.py

lint: $(STAMP) ## style, types, imports between rooms, spelling
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/codespell

audit: ## known vulnerabilities of the pinned packages, where a database of them can be reached
	@test -x .venv-audit/bin/python || $(PYTHON) -m venv .venv-audit
	@.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit || true
	@.venv-audit/bin/python .ci/audit.py

format: $(STAMP) ## rewrite the code in the common style
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

serve: $(STAMP) ## Prefect server, worker and nightly deployment on this machine, until Ctrl-C
	@test -d $(SHOP) || $(BIN)/overnight simulate --out $(SHOP)
	@$(BIN)/overnight serve --root $(ROOT) --source $${OVERNIGHT_SOURCE:-$(SHOP)}

clean: ## remove the environment, the demo shop and its artifacts
	rm -rf .venv .venv-gpu .venv-audit $(SHOP) $(ROOT)
