# make demo | test | check | lint | setup | clean.   CUDA=12|13 overrides the choice of GPU packages.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The driver decides: the CUDA 13 packages need a driver of CUDA 13; without a GPU they run on the CPU.
DRIVER := $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\)\..*/\1/p')
CUDA ?= $(if $(filter 12,$(DRIVER)),12,13)
EXTRA := cu$(CUDA)
STAMP := $(VENV)/.installed-$(EXTRA)

# What Python compiles stays: without it each process that a test starts compiles torch anew.
export PYTHONDONTWRITEBYTECODE :=

JOBS ?= $(shell nproc)
PYTEST := $(BIN)/pytest -n $(JOBS) --maxprocesses 8 --dist worksteal

.PHONY: setup demo test check lint pins clean

setup: $(STAMP)

$(STAMP): pyproject.toml .ci/pins-$(EXTRA).txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: $(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || { echo "setup: Python has no venv module; on Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "setup: packages for CUDA $(CUDA)$(if $(DRIVER), (driver: CUDA $(DRIVER)), (no GPU driver found: everything runs on the CPU)) into $(VENV)"
	test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv; }
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint .ci/pins-$(EXTRA).txt --editable ".[$(EXTRA),openvino,dev]"
	mkdir -p $(VENV)/namespace/affect
	for name in engine kernels shards bench configs; do ln -sfn ../../../$$name $(VENV)/namespace/affect/$$name; done
	touch $@

demo: setup
	$(BIN)/affect demo

# All tests, on all cores (JOBS=1: in one process, as plain `pytest` runs them).
test: setup
	$(PYTEST)

# While typing: all tests but those marked slow, which train, export, compile or start processes.
check: setup
	$(PYTEST) -m "not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Written anew by hand when a dependency moves; names and versions only.
pins: setup
	for cuda in 12 13; do $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
		--extra cu$$cuda --extra openvino --extra dev --output-file .ci/pins-cu$$cuda.txt pyproject.toml; done

clean:
	rm -rf $(VENV) build *.egg-info demo
