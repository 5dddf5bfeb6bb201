# Everything here needs Python 3.11 or newer and make; the rest is installed into .venv by the first target that needs it.
# Another Python: make PYTHON=python3.12 demo. Arguments for the tool behind a target: make test ARGS="-k outbox".
# Tests run in two processes: make test JOBS=0 runs them in one.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; done; echo python3)
PY := .venv/bin/python
JOBS ?= 2
ROUNDS ?= 3
INSTALL = @"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "Newsroom needs Python 3.11 or newer; $(PYTHON) is: $$("$(PYTHON)" -V 2>&1 || true)" >&2; \
	echo "If a newer one is installed, name it: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }; \
	"$(PYTHON)" newsroom/management/install.py

.DEFAULT_GOAL := help
.PHONY: help demo test test-sqlite test-postgresql test-browser torture bench screenshots lint messages lock clean install-demo install-dev

help:
	@echo "make demo          run the whole site on this machine, with a local mailbox (ARGS=--port=8080)"
	@echo "make test          run the tests on SQLite and on PostgreSQL"
	@echo "make test-browser  walk the readers' and the staff's paths in Chromium"
	@echo "make torture       run the long fault tests at full size (FRACTION=0.05 for a small form)"
	@echo "make bench         measure what sending costs, beside other ways (N=100000 readers, ROUNDS=3; ARGS=--docs keeps it)"
	@echo "make screenshots   take the pictures in docs/screenshots anew"
	@echo "make lint          check style, types, imports, migrations, templates and translations"
	@echo "make messages      bring the translation catalogues up to date"
	@echo "make lock          pin the dependencies anew (ARGS=--upgrade for newer ones)"
	@echo "make clean         remove the demo's data and what the tools left"

demo: install-demo
	@$(PY) manage.py demo $(ARGS)

test: test-sqlite test-postgresql

test-sqlite: install-dev
	$(PY) -m pytest -n $(JOBS) --dist worksteal --ignore=tests/browser $(ARGS)

test-postgresql: install-dev
	$(PY) -m pytest -n $(JOBS) --dist worksteal --ignore=tests/browser --pg $(ARGS)

test-browser: install-dev
	$(PY) -m pytest tests/browser $(ARGS)

torture: install-dev
	@$(PY) -m tests.torture $(FRACTION) $(ARGS)

bench: install-dev
	@$(PY) -m tests.benchmarks $(if $(N),--readers $(N)) --rounds $(ROUNDS) $(ARGS)

screenshots: install-dev
	$(PY) -m tests.browser.screenshots

lint: export VAR_DIR := .ruff_cache/var
lint: export ENV_FILE := /dev/null
lint: install-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports
	$(PY) manage.py makemigrations --check --dry-run
	$(PY) manage.py check --fail-level WARNING
	$(PY) -m djlint --quiet --lint templates
	$(PY) newsroom/locale/catalogues.py check

messages: install-dev
	$(PY) newsroom/locale/catalogues.py update

# The locks name no index: whoever installs uses their own. uv keeps the versions that are locked unless told otherwise.
LOCK = UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--generate-hashes $(ARGS)

lock:
	@command -v uv >/dev/null || { echo "uv is missing: pip install uv" >&2; exit 1; }
	$(LOCK) --extra dev --output-file requirements-dev.txt
	$(LOCK) --extra demo --constraint requirements-dev.txt --output-file requirements-demo.txt
	$(LOCK) --constraint requirements-dev.txt --output-file requirements.txt

clean:
	@pid=$$(cut -d ' ' -f 1 var/demo.lock 2>/dev/null); if [ -n "$$pid" ] && kill -0 "$$pid" 2>/dev/null; then \
		echo "The demo is running (process $$pid); end it with Ctrl-C first." >&2; exit 1; fi
	rm -rf var .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

install-demo:
	$(INSTALL) requirements-demo.txt

install-dev:
	$(INSTALL) requirements-dev.txt
