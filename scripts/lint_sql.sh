#!/usr/bin/env bash
# Lints the SQL of the dbt package with sqlfluff and its dbt templater.
#   scripts/lint_sql.sh VENV
# The templater compiles the models, and staging asks the raw events for their columns: an almost
# empty events file stands in for them, in a database of its own and without our plugin.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

export DBT_TARGET_PATH="$scratch/target"
export DBT_LOG_PATH="$scratch/logs"
"$venv/bin/python" -c "
import duckdb
duckdb.sql('''
    copy (select 'u' as user_id, 'purchase' as event_type, timestamp '2024-01-01' as event_ts)
    to '$scratch/events.parquet'
''')"
cat > "$scratch/profiles.yml" <<END
churn_scoring:
  target: lint
  outputs:
    lint:
      type: duckdb
      path: $scratch/lint.duckdb
END
config="$scratch/context.cfg"
cat > "$config" <<END
[sqlfluff:templater:dbt]
profiles_dir = $scratch
[sqlfluff:templater:dbt:context]
churn__events_path = $scratch/events.parquet
END

printf 'Linting SQL (about a minute)\n'
"$venv/bin/sqlfluff" lint --config "$config" --disable-progress-bar "${@:2}" \
    dbt_project/models dbt_project/tests
