# Everything runs in one virtual environment, which the first call of any target makes.
SHELL := /bin/bash
PYTHON ?= python3
CONFIG ?= serve_config.cpu.yaml
# What to install besides `dev`: `cpu`, or `gpu` on a machine that has one (then name a CONFIG too).
EXTRA ?= cpu
# Arrivals to draw requests from, a CSV with timestamp, input_tokens and output_tokens; lengths of
# the same distribution are drawn without it.
TRACE ?=
TRACE_OPTION := $(if $(TRACE),--trace $(TRACE))
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
TORCH_VERSION := 2.13.0

# The CPU build of torch: from a folder of wheels where one is named and holds it, else from
# PyTorch's own index.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
TORCH_WHEEL := $(wildcard $(UV_FIND_LINKS)/torch-$(TORCH_VERSION)+cpu*)
TORCH_INDEX := $(if $(TORCH_WHEEL),,--torch-backend=cpu)
CPU_OPTIONS := $(TORCH_INDEX) --override cpu-overrides.txt

export VIRTUAL_ENV := $(CURDIR)/$(VENV)
# Three processes for each engine import vLLM: without bytecode that takes twice as long.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install serve test test-unit test-integration check-fast chaos hostile soak check docs bench bench-routing clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml cpu-overrides.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --compile-bytecode $(if $(filter cpu,$(EXTRA)),$(CPU_OPTIONS)) -e '.[$(EXTRA),dev]'
	touch $@

serve: install
	$(BIN)/python -m deployments.check $(CONFIG)
	if grep -q embedded: $(CONFIG); then $(BIN)/python -m deployments.embedded; fi
	$(BIN)/python -m cluster up $(CONFIG) $(UP_OPTIONS)

# Both parts run, whatever the first one finds.
test: install
	status=0; \
	$(MAKE) --no-print-directory test-unit || status=$$?; \
	$(MAKE) --no-print-directory test-integration || status=$$?; \
	exit $$status

# What needs no engine, on two processes.
test-unit: install
	$(BIN)/python -m pytest -n 2 -m "not integration" $(PYTEST_OPTIONS)

# Real Ray Serve and real vLLM, one cluster at a time.
test-integration: install
	$(BIN)/python -m pytest -m integration $(PYTEST_OPTIONS)

# Breaks one thing after another under load, on a Ray of three raylets; a quarter of an hour.
chaos: install
	PYTHONPATH=tests $(BIN)/python -m chaos $(CHAOS_OPTIONS)

# Sends one bad request after another next to ordinary clients; ten minutes to half an hour.
hostile: install
	PYTHONPATH=tests $(BIN)/python -m hostile $(HOSTILE_OPTIONS)

# Whether memory and handles stay flat under mixed load.
soak: install
	PYTHONPATH=tests $(BIN)/python -m chaos.soak $(SOAK_OPTIONS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=benchmarks:tests:tests/unit/helpers $(BIN)/mypy --explicit-package-bases benchmarks examples tests
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --site-dir .cache/docs

# What the decision alone needs, in half a minute.
check-fast: install
	$(BIN)/ruff check scheduler tests/unit/scheduler
	$(BIN)/mypy -p scheduler
	$(BIN)/python -m pytest -q -n 2 tests/unit/scheduler --cov=scheduler --cov-branch \
		--cov-report=term:skip-covered --cov-fail-under=90

# Every page by itself, at http://127.0.0.1:8001, built again at each change.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:8001

# What is predicted from model cards needs the figures that DATA names, energy_mlenergy.csv.gz.
bench: install
	$(BIN)/python benchmarks/decision.py
	$(BIN)/python benchmarks/record.py
	$(BIN)/python benchmarks/token_counts.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/flamegraph.py
	$(BIN)/python benchmarks/autoscaled.py
	$(BIN)/python benchmarks/overload.py
	$(BIN)/python benchmarks/streams.py
	$(BIN)/python benchmarks/control_plane.py
	$(if $(DATA),$(BIN)/python benchmarks/priors.py --data $(DATA)/energy_mlenergy.csv.gz)
	$(BIN)/python benchmarks/simulate.py --quick $(TRACE_OPTION)
	$(BIN)/python benchmarks/shared_device.py $(TRACE_OPTION)
	$(BIN)/python benchmarks/prediction.py $(TRACE_OPTION) $(BENCH_OPTIONS)
	$(BIN)/python benchmarks/first_run.py $(TRACE_OPTION)
	$(BIN)/python benchmarks/trace.py $(TRACE_OPTION) --plot plots/trace.png

# Needs the outcomes that DATA names, three files quality_*.csv.gz, and outcomes_zeroeval.csv.gz.
bench-routing: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/worth.py $(if $(DATA),--data $(DATA))
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/routing.py $(if $(DATA),--data $(DATA))
	$(BIN)/python benchmarks/worth_live.py

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
