# Everything a newcomer types: `make demo`, `make test`. Needs only Python >= 3.11, pip and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DATA   ?= $(or $(CTMR_TEST_DATA),../shared/data)
OUT    ?= runs
JOBS   ?= 2

# Quiet servers that stay on this machine.
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export DO_NOT_TRACK = 1
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: help setup demo real-data proof-brain proof-torso proof-torso-mr night soak test test-all lint format clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort

setup: $(STAMP)  ## Make .venv and install the project with constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, this is {v.major}.{v.minor}: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: setup  ## Plan, generate, check and report a small dataset under runs/demo
	$(BIN)/ctmr demo --out $(OUT)/demo

real-data: setup  ## Import real label maps from DATA and generate CT and MR over them
	CTMR=$(abspath $(BIN))/ctmr infra/examples/real_data.sh $(DATA) $(OUT)/real

proof-brain: setup  ## Train on generated heads only, score on the real T1 of DATA; QUICK=1 to see it run, RUNS="main ..." to choose
	$(BIN)/python benchmarks/usefulness.py brain --data $(DATA) --out $(OUT)/proof-brain$(if $(QUICK),-quick --quick) $(if $(RUNS),--runs $(RUNS))

proof-torso: setup  ## Train on parametric torsos only, score on the real CT of DATA; QUICK=1, RUNS="main ..." as above
	$(BIN)/python benchmarks/usefulness.py torso --data $(DATA) --out $(OUT)/proof-torso$(if $(QUICK),-quick --quick) $(if $(RUNS),--runs $(RUNS))

proof-torso-mr: setup  ## Train on parametric torsos in MR, score on the real MR of DATA; QUICK=1, RUNS="main ..." as above
	$(BIN)/python benchmarks/usefulness.py torso-mr --data $(DATA) --out $(OUT)/proof-torso-mr$(if $(QUICK),-quick --quick) $(if $(RUNS),--runs $(RUNS))

night: setup  ## Three nights in a few minutes: server, worker, schedule, a restart, snapshots under runs/night
	$(BIN)/python infra/examples/night.py $(OUT)/night

soak: setup  ## Random storms on a small dataset for MINUTES=10, compared with a calm run; SEED=n repeats them
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

test: setup lint  ## Lint, check the layers and run the tests that fit into CI
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist loadscope -rs --durations=25

test-all: setup lint  ## The tests, the slow ones too
	$(BIN)/python -m pytest -n $(JOBS) --dist loadscope

lint: setup  ## Style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: setup  ## Rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove what the targets made
	rm -rf $(VENV) $(OUT) build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
