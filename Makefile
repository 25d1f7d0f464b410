# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check lint types layers bench dist clean

$(STAMP): pyproject.toml hatch_build.py $(wildcard edgekit/runner/src/*) edgekit/runner/build.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check hatchling==1.* editables==0.* ziglang==0.17.1
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[dev]'
	touch $@

demo: $(STAMP)  ## the whole flow on the shipped sample
	$(BIN)/edgekit demo

test: $(STAMP)  ## every test, on real engines
	$(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder --max-worker-restart 0

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

layers: $(STAMP)
	$(BIN)/lint-imports

check: lint types layers test  ## format, lint, strict types, import layers, tests

bench: $(STAMP)  ## figures against Python onnxruntime; ZOO=FOLDER adds the open models; needs a quiet machine
	$(BIN)/python -m benchmarks.runner $(ZOO)

dist: $(STAMP)  ## the wheel and the sdist, in dist/
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf $(VENV) dist build edgekit/runner/bin
