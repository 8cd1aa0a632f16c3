# Two commands for a newcomer: `make train` and `make test`. Both set everything up on a fresh clone.
#
#   make train RECIPE=recipes/tiny.toml ARGS="--run first"
#   make train DEVICE=gpu                    CUDA builds from requirements/gpu.txt
#   make train TORCH_INDEX=<url>             where to take the CPU build of torch from, if pip does not find it

SHELL := /bin/sh
VENV ?= .venv
DEVICE ?= cpu
RECIPE ?= recipes/quickstart.toml
ARGS ?=
TORCH_INDEX ?=
REQUIREMENTS := requirements/$(DEVICE).txt
STAMP := $(VENV)/.installed-$(DEVICE)
BIN := $(VENV)/bin

.PHONY: train test lint unit parts e2e e2e-longer e2e-shorter cluster-test dashboards-test docs clean

train: $(STAMP)
	$(BIN)/rapid train $(RECIPE) $(ARGS)

# Runs of the whole system wait for engines much of their time, so that two of these go side by side: the tests of the parts
# and then the shorter half of the runs beside the longer half.
test: lint
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target parts e2e-longer e2e-shorter

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

unit: $(STAMP)
	$(BIN)/pytest -m "not slow and not cluster" $(ARGS)

parts: $(STAMP)
	$(BIN)/pytest -m "not cluster" --ignore=tests/e2e $(ARGS)

SHORTER := $(addprefix tests/e2e/test_,$(addsuffix .py,autoscaling evaluation table top))

e2e-longer: $(STAMP)
	$(BIN)/pytest -m "not cluster" --timeout=1800 tests/e2e $(addprefix --ignore=,$(SHORTER)) $(ARGS)

e2e-shorter: $(STAMP)
	$(BIN)/pytest -m "not cluster" --timeout=1800 $(SHORTER) $(ARGS)

e2e: e2e-longer e2e-shorter

# Three hosts out of network namespaces: wants root, iproute2, openssh-server and rsync, so that it is not part of `test`.
cluster-test: $(STAMP)
	$(BIN)/pytest -m cluster -s --timeout=1200 $(ARGS)

docs: $(STAMP)
	$(BIN)/python -m rapid.reference > docs/configuration.md
	$(BIN)/python -m telemetry.catalogue > docs/metrics.md
	$(BIN)/python -m telemetry.dashboards

# Dashboards and alert rules against a real Prometheus on a real run. The same tests are part of `make test`, which skips
# them where Prometheus is missing.
dashboards-test: $(STAMP)
	@for tool in prometheus promtool; do command -v $$tool >/dev/null || { \
		echo "dashboards-test: $$tool is missing; install Prometheus (Debian: apt-get install prometheus)" >&2; exit 2; }; done
	$(BIN)/pytest tests/telemetry/test_dashboards.py tests/telemetry/test_alerts.py tests/e2e/test_prometheus.py $(ARGS)

$(STAMP): $(REQUIREMENTS) requirements/install.sh pyproject.toml
	@DEVICE=$(DEVICE) VENV=$(VENV) TORCH_INDEX=$(TORCH_INDEX) sh requirements/install.sh
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
