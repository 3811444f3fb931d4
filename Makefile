# Every target sets up what it needs in .venv; nothing has to be installed or activated first.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules

# The first Python of a supported version on the PATH; name another one with `make PYTHON=...`.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.10 python3 python; do \
	if $$name -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))' \
	2>/dev/null; then echo $$name; break; fi; done)

# A stamp's name carries the hash of what decides what is installed, so the second run of any
# target installs nothing and a changed pin is installed.
KEY := $(shell cat pyproject.toml constraints*.txt scripts/requirements-lint.txt | cksum | tr -d ' ')
SCHEDULERS_KEY := $(shell cat examples/schedulers/*/requirements.txt | cksum | tr -d ' ')
DEMO_STAMP := .venv/.installed-demo-$(KEY)
BENCH_STAMP := .venv/.installed-bench-$(KEY)
DEV_STAMP := .venv/.installed-dev-$(KEY)
LINT_STAMP := .venv-lint/.installed-lint-$(KEY)
AIRFLOW_STAMP := .venv-airflow/.installed-airflow-$(SCHEDULERS_KEY)
DAGSTER_STAMP := .venv-dagster/.installed-dagster-$(SCHEDULERS_KEY)

# pytest arguments, for example: make test TESTS='tests/unit -k splits'
TESTS ?=

.PHONY: help
help: ## Show this list
	@printf 'make TARGET\n\n'
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' \
		| while IFS=$$'\t' read -r target text; do printf '  %-16s %s\n' "$$target" "$$text"; done
	@printf '\nPython used: %s\n' "$${PYTHON:-$(or $(PYTHON),none found, 3.10 to 3.12 needed)}"

$(DEMO_STAMP):
	@scripts/setup_venv.sh "$(PYTHON)" .venv $@ -c constraints.txt -e '.[train,demo]'

$(BENCH_STAMP):
	@scripts/setup_venv.sh "$(PYTHON)" .venv $@ -c constraints.txt -e '.[train,adapters,demo,bench]'

$(DEV_STAMP):
	@scripts/setup_venv.sh "$(PYTHON)" .venv $@ -c constraints.txt -e '.[train,tune,adapters,tensorboard,wandb,mlflow,demo,minilm,dev]'

$(LINT_STAMP):
	@scripts/setup_venv.sh "$(PYTHON)" .venv-lint $@ -c constraints-lint.txt \
		-r scripts/requirements-lint.txt

$(AIRFLOW_STAMP):
	@scripts/setup_venv.sh "$(PYTHON)" .venv-airflow $@ -r examples/schedulers/airflow/requirements.txt

$(DAGSTER_STAMP):
	@scripts/setup_venv.sh "$(PYTHON)" .venv-dagster $@ -r examples/schedulers/dagster/requirements.txt

.PHONY: demo
demo: $(DEMO_STAMP) ## Load real data, build features, train, score; work goes to .demo/
	@.venv/bin/python -m demo.run

.PHONY: test
# One process a core, one thread a process: threads that share a core wait for each other. A process
# that has nothing left takes over tests that wait with another one.
test: $(DEV_STAMP) ## Run every test: Python, dbt, browser, the whole path on small data
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist worksteal $(TESTS)

.PHONY: test-schedulers
test-schedulers: $(DEV_STAMP) $(AIRFLOW_STAMP) $(DAGSTER_STAMP) ## Run the examples of cron, Airflow and Dagster for real
	@.venv/bin/python -m pytest examples/schedulers/tests $(TESTS)

.PHONY: lint
lint: lint-python lint-sql ## Check style of Python and SQL, and the import rules

.PHONY: lint-python
lint-python: $(DEV_STAMP)
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/lint-imports --no-logo

.PHONY: lint-sql
lint-sql: $(LINT_STAMP)
	@scripts/lint_sql.sh .venv-lint

.PHONY: format
format: $(DEV_STAMP) ## Rewrite Python files in the house style
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

.PHONY: types
types: $(DEV_STAMP) ## Check types with mypy
	@.venv/bin/mypy

.PHONY: bench
bench: $(BENCH_STAMP) ## Run the benchmarks
	@for file in benchmarks/bench_*.py; do echo "$$file"; .venv/bin/python "$$file"; done

.PHONY: check
check: lint types test ## All that CI checks: lint, types, test

.PHONY: constraints
constraints: $(DEV_STAMP) ## Resolve the newest versions again and rewrite constraints.txt
	@scripts/update_constraints.sh

.PHONY: clean
clean: ## Remove environments, caches and everything that the demo made
	rm -rf .venv .venv-lint .venv-airflow .venv-dagster .demo build *.egg-info .mypy_cache .pytest_cache .ruff_cache \
		.hypothesis .import_linter_cache dbt_project/target dbt_project/logs \
		dbt_project/dbt_packages
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
