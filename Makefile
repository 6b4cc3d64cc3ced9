# `make` lists what there is. Every target calls set-up first, which does nothing when up to date.

PY = .venv/bin/python
READY = .venv/.project .venv-s3/.requirements
COMPILE = $(PY) -m uv pip compile --universal --python-version 3.10 --generate-hashes --no-emit-index-url --no-annotate -q $(LOCK_FLAGS)

# The certificates that the system trusts, a company's own among them, as pip has it.
export UV_SYSTEM_CERTS ?= true

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | while IFS='	' read -r target text; do printf '  %-9s %s\n' "$$target" "$$text"; done

setup: $(READY)  ## make .venv with everything in it (PYTHON=... chooses the interpreter)

demo: $(READY)  ## train a digits model, package it, show it and ask it
	@$(PY) examples/digits/demo.py

test: $(READY)  ## run the tests (PYTEST_FLAGS=... adds to them)
	@$(PY) -m pytest -n 4 --dist loadgroup $(PYTEST_FLAGS)

soak: $(READY)  ## run the long tests too: every crash, big races; prints their figures
	@$(PY) -m pytest -n 2 --dist loadgroup -m "soak or figures" $(PYTEST_FLAGS)

bench: $(READY) .venv-transfer/.requirements  ## run the benchmarks
	@$(PY) -m benchmarks.run

gpu-check: $(READY)  ## run what needs a GPU and TensorRT, and write docs/gpu.md
	@$(PY) -m benchmarks.gpu_check --driver-only
	@$(MAKE) --no-print-directory .venv/.gpu
	@$(PY) -m benchmarks.gpu_check

check: $(READY)  ## linters, types and layers
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy
	@.venv/bin/lint-imports --no-logo

lock: .venv/.requirements  ## resolve the requirements anew (LOCK_FLAGS=--upgrade takes newer releases)
	@$(COMPILE) requirements/uv.in -o requirements/uv.txt
	@$(COMPILE) requirements/s3-server.in -o requirements/s3-server.txt
	@$(COMPILE) requirements/transfer-tools.in -o requirements/transfer-tools.txt
	@$(COMPILE) pyproject.toml --extra pipeline --group dev -o requirements/dev.txt
	@$(COMPILE) pyproject.toml --extra pipeline -c requirements/dev.txt -o requirements/pipeline.txt
	@$(COMPILE) pyproject.toml -c requirements/dev.txt -o requirements/base.txt
	@$(COMPILE) requirements/gpu.in -c requirements/dev.txt -o requirements/gpu.txt

clean:  ## remove the environments and every cache
	rm -rf .venv .venv-s3 .venv-transfer build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .cache

.venv/.requirements: requirements/dev.txt requirements/uv.txt requirements/sync
	@requirements/sync .venv requirements/dev.txt
	@touch $@

# Offline: the locked setuptools builds it, so that an edited pyproject.toml never needs the network.
.venv/.project: .venv/.requirements pyproject.toml
	@$(PY) -m uv pip install --quiet --offline --no-deps --no-build-isolation --python $(PY) -e .
	@touch $@

# Beside what is there: three gigabytes that only a machine with a GPU has a use for.
.venv/.gpu: .venv/.requirements requirements/gpu.txt
	@echo "installing requirements/gpu.txt into .venv"
	@$(PY) -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/gpu.txt
	@touch $@

# Environments of their own, because the server and the AWS CLI pin another botocore each.
.venv-s3/.requirements: .venv/.requirements requirements/s3-server.txt
	@requirements/sync .venv-s3 requirements/s3-server.txt
	@touch $@

.venv-transfer/.requirements: .venv/.requirements requirements/transfer-tools.txt
	@requirements/sync .venv-transfer requirements/transfer-tools.txt
	@touch $@

.PHONY: help setup demo test soak bench gpu-check check lock clean
