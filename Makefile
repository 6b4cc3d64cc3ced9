# `make` lists what there is. Every target calls set-up first, which does nothing when up to date.

PY = .venv/bin/python
READY = .venv/.project .venv-s3/.requirements
COMPILE = $(PY) -m uv pip compile --universal --python-version 3.10 --generate-hashes --no-emit-index-url --no-annotate -q $(LOCK_FLAGS)

# The certificates that the system trusts, a company's own among them, as pip has it.
export UV_SYSTEM_CERTS ?= true

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | while IFS='	' read -r target text; do printf '  %-8s %s\n' "$$target" "$$text"; done

setup: $(READY)  ## make .venv with everything in it (PYTHON=... chooses the interpreter)

demo: $(READY)  ## train a digits model, package it, show it and ask it
	@$(PY) examples/digits/demo.py

test: $(READY)  ## run the tests (PYTEST_FLAGS=... adds to them)
	@$(PY) -m pytest -n 2 --dist loadgroup $(PYTEST_FLAGS)

soak: $(READY)  ## run the long tests too: every crash, big races; prints their figures
	@$(PY) -m pytest -n 2 --dist loadgroup -m "soak or figures" $(PYTEST_FLAGS)

bench: $(READY) .venv-transfer/.requirements  ## run the benchmarks
	@$(PY) -m benchmarks.run

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

clean:  ## remove the environments and every cache
	rm -rf .venv .venv-s3 .venv-transfer build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

.venv/.requirements: requirements/dev.txt requirements/uv.txt requirements/sync
	@requirements/sync .venv requirements/dev.txt
	@touch $@

# Offline: the locked setuptools builds it, so that an edited pyproject.toml never needs the network.
.venv/.project: .venv/.requirements pyproject.toml
	@$(PY) -m uv pip install --quiet --offline --no-deps --no-build-isolation --python $(PY) -e .
	@touch $@

# Environments of their own, because the server and the AWS CLI pin another botocore each.
.venv-s3/.requirements: .venv/.requirements requirements/s3-server.txt
	@requirements/sync .venv-s3 requirements/s3-server.txt
	@touch $@

.venv-transfer/.requirements: .venv/.requirements requirements/transfer-tools.txt
	@requirements/sync .venv-transfer requirements/transfer-tools.txt
	@touch $@

.PHONY: help setup demo test soak bench check lock clean
