PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed

export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help venv train test thorough check format bench lock clean

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

venv: $(STAMP) ## make .venv and install everything that requirements.txt names

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Yozh needs Python 3.11 or later: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "[1/3] making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@echo "[2/3] installing $$(grep -c == requirements.txt) packages, about 1 GB: some minutes the first time"
	@$(BIN)/pip install --disable-pip-version-check --require-hashes -r requirements.txt
	@echo "[3/3] installing yozh itself"
	@$(BIN)/pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $@

train: $(STAMP) ## train DQN to land the lunar module, and say where the report is
	@out=runs/lander; n=2; while [ -e "$$out" ]; do out=runs/lander-$$n; n=$$((n + 1)); done; \
	echo "yozh train dqn LunarLander-v3 --seed 0 --out $$out"; \
	$(BIN)/yozh train dqn LunarLander-v3 --seed 0 --out "$$out"

test: $(STAMP) ## the whole test suite
	$(BIN)/python -m pytest -n 2 -m "not slow and not thorough"
	YOZH_UNCHECKED=1 $(BIN)/python -m pytest -n 2 -m "slow and not thorough"

thorough: $(STAMP) ## what takes long and the test suite leaves out
	YOZH_UNCHECKED=1 $(BIN)/python -m pytest -n 2 -m thorough

check: $(STAMP) ## the quick part: lint, format, types, imports, unit tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 -m "not slow and not thorough"

format: $(STAMP) ## put the sources in order
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(STAMP) ## measure speed against other libraries
	$(BIN)/python -m benchmarks

lock: ## renew requirements.txt from pyproject.toml (needs uv; UPGRADE=--upgrade takes the newest versions)
	uv pip compile --quiet $(UPGRADE) --universal --python-version 3.11 --all-extras --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml -o requirements.txt

clean: ## remove .venv, caches and build leftovers; keeps runs/
	rm -rf .venv .cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
