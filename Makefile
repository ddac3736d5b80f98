# Two commands: `make run` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help install run demo test check fix lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/installed ## install the proxy into .venv

# OpenVINO's GPU and NPU plug-ins (60 MB) serve devices that the proxy does not use.
$(VENV)/installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --no-compile --require-hashes -r requirements.lock
	$(PIP) install --no-compile --no-deps --editable .
	$(PIP) uninstall -y setuptools
	rm -f $(VENV)/lib/python*/site-packages/openvino/libs/libopenvino_intel_[gn]pu_plugin.so
	rm -f $(VENV)/lib/python*/site-packages/openvino/libs/cache.json
	touch $@

run: install ## serve: data plane on 127.0.0.1:8080, control plane on 127.0.0.1:8081
	$(BIN)/rerank-canary serve

demo: install ## play a rollout with a fault on the way, to be watched on the dashboard
	$(BIN)/rerank-canary demo

# The tests have an environment of their own, so that what they need never hides what the proxy lacks.
.venv-test/installed: requirements-dev.lock requirements-torch.txt pyproject.toml
	test -x .venv-test/bin/python || $(PYTHON) -m venv .venv-test
	.venv-test/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements-dev.lock
	.venv-test/bin/python -m pip --disable-pip-version-check --quiet install -r requirements-torch.txt
	.venv-test/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --editable .
	touch $@

test: install .venv-test/installed ## install what the tests need and run the whole suite
	tests/parts/install
	.venv-test/bin/python -m pytest -n 2 --dist loadfile

check: .venv-test/installed ## ruff, mypy, the arrow between the packages
	.venv-test/bin/ruff format --check .
	.venv-test/bin/ruff check .
	.venv-test/bin/mypy proxy flags alerts tests
	.venv-test/bin/python -m pytest -q tests/unit/test_arrow.py

fix: .venv-test/installed ## let ruff mend what it can
	.venv-test/bin/ruff check --fix .
	.venv-test/bin/ruff format .

lock: ## resolve the lock files anew
	uv pip compile --quiet --generate-hashes --no-emit-index-url --python-version 3.11 --no-annotate \
	  --custom-compile-command "make lock" pyproject.toml --output-file requirements.lock
	uv pip compile --quiet --generate-hashes --no-emit-index-url --python-version 3.11 --no-annotate --extra dev \
	  --custom-compile-command "make lock" pyproject.toml --output-file requirements-dev.lock
	uv pip compile --quiet --generate-hashes --no-emit-index-url --python-version 3.11 --no-annotate --extra s3 \
	  --custom-compile-command "make lock" pyproject.toml --output-file requirements-image.lock

clean: ## remove what the targets made
	rm -rf $(VENV) .venv-test var tests/parts/.cache
