# The commands of the project. `make demo` and `make test` need nothing but Python 3.11 to 3.13.

# Candidates, best first; give one to choose it: `make test PYTHON=/opt/python/bin/python3`.
PYTHON ?= python3.13 python3.12 python3.11 python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed.stamp

.DEFAULT_GOAL := help
.PHONY: help install demo test lint bench minkowski minkowski-kept resume clean

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

install: $(INSTALLED)  ## create .venv with the package and its tools in it

demo: $(INSTALLED)  ## from simulated raw files to maps and reports, both modalities
	@$(BIN)/vasculome demo $(ARGS)

# One thread a process: two test workers with as many BLAS threads as cores slow each other down. The
# tests of a file share what it prepares, so a file stays with one worker.
test: export OMP_NUM_THREADS = 1
test: $(INSTALLED)  ## every test (ARGS='-k grid' for some)
	@$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile $(ARGS)

lint: $(INSTALLED)  ## style, types, import contracts, workflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/lint-imports --no-logo
	$(BIN)/python workflow/lint.py

bench: $(INSTALLED)  ## one benchmark: make bench NAME=io
	@test -n "$(NAME)" -a -f "benchmarks/$(NAME).py" || { echo "make bench: give NAME, one of:" \
		$(basename $(notdir $(wildcard benchmarks/*.py))) >&2; exit 2; }
	@$(BIN)/python benchmarks/$(NAME).py $(ARGS)

# Wheels that were built here stay outside the clone. Their names tell package, Python and processor,
# the folder tells torch: a wheel fits one version of it only, which pip's own cache does not know.
WHEELS = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vasculome/wheels
MINKOWSKI := MinkowskiEngine==0.5.4
WHEELS_OF_TORCH = $(WHEELS)/torch-$$($(BIN)/python -c 'import torch; print(torch.__version__)')

# The build asks for its libraries through NumPy's old distutils, which Python 3.12 lacks, unless it
# is told; it calls `pip`, which must be that of .venv. Each job takes up to 2 GB.
minkowski: export PATH := $(CURDIR)/$(BIN):$(PATH)
minkowski: export MAX_JOBS ?= 1
minkowski: $(INSTALLED)  ## build MinkowskiEngine, to compare our sparse tensors with (10 minutes)
	@$(MAKE) --silent minkowski-kept 2>/dev/null || { set -e; \
		echo '#include <cblas.h>' | $(CXX) -E -x c++ - >/dev/null 2>&1 || { echo "make: no cblas.h" \
			"for $(CXX): install OpenBLAS first (Debian: libopenblas-dev)" >&2; exit 1; }; \
		$(BIN)/python -m pip install --quiet 'setuptools>=77,<80' wheel ninja; \
		$(BIN)/python -m pip wheel --quiet --no-cache-dir --no-deps --use-pep517 \
			--no-build-isolation --config-settings='--global-option=--cpu_only --blas=openblas' \
			--wheel-dir "$(WHEELS_OF_TORCH)" $(MINKOWSKI); \
		$(MAKE) --silent minkowski-kept; }
	@echo "MinkowskiEngine is in $(VENV)"

# Only a wheel that an earlier build kept; fails where there is none. What is installed already may
# have been built for another torch, so it is replaced.
minkowski-kept: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --force-reinstall --no-deps --no-index \
		--find-links "$(WHEELS_OF_TORCH)" $(MINKOWSKI)
	@$(BIN)/python -c 'from vasculome.sparse import backend; backend("minkowski")'

resume: $(INSTALLED)  ## carry on after a crash: wait for orphans, unlock, rerun what is incomplete
	@$(BIN)/vasculome resume $(ARGS)

clean:  ## remove .venv, caches and the demonstration's files; never results/
	rm -rf $(VENV) demo build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache \
		.hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A candidate may exist and yet not run, as a pyenv shim does, so each is tried.
$(BIN)/python:
	@for python in $(PYTHON); do \
		if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
			>/dev/null 2>&1; then \
			echo "creating $(VENV) with $$($$python --version) ($$python)"; \
			$$python -m venv --clear $(VENV) && exit 0; \
			rm -rf $(VENV); \
			echo "make: $$python cannot create a virtual environment (see above)" >&2; \
			exit 1; \
		fi; \
	done; \
	echo "make: no Python 3.11, 3.12 or 3.13 among: $(PYTHON)" \
		"(install one, or name it: make PYTHON=python3.12 ...)" >&2; \
	exit 1

# torch first and alone: resolved together with the rest, pip may take its CUDA build, which is
# gigabytes larger, where a CPU build would do.
$(INSTALLED): pyproject.toml envs/constraints.txt | $(BIN)/python
	@echo "installing into $(VENV): some minutes the first time, seconds after"
	@$(BIN)/python -m pip install --quiet --constraint envs/constraints.txt torch==2.13.0
	@$(BIN)/python -m pip install --quiet --constraint envs/constraints.txt --editable '.[test,lint]'
	@touch $@
