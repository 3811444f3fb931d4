#!/usr/bin/env bash
# Lints the SQL of the dbt package with sqlfluff and its dbt templater.
#   scripts/lint_sql.sh VENV
# The templater compiles the models, and staging asks the raw events for their columns: an empty
# events file stands in for them, in a database of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

export CHURN_DUCKDB_PATH="$scratch/lint.duckdb"
export CHURN_MODELS_DIR="$scratch/models"
export DBT_TARGET_PATH="$scratch/target"
export DBT_LOG_PATH="$scratch/logs"
export PYTHONPATH=$PWD
"$venv/bin/python" -c "
import duckdb
duckdb.sql('''
    copy (select 'u' as user_id, 'purchase' as event_type, timestamp '2024-01-01' as event_ts)
    to '$scratch/events.parquet'
''')"
config="$scratch/context.cfg"
printf '[sqlfluff:templater:dbt:context]\nchurn__events_path = %s\n' "$scratch/events.parquet" > "$config"

printf 'Linting SQL (about a minute)\n'
"$venv/bin/sqlfluff" lint --config "$config" --disable-progress-bar "${@:2}" \
    dbt_project/models dbt_project/tests
