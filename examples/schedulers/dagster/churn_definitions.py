"""Nightly churn scores on Dagster with dagster-dbt: score, retrain if due, report.

Every dbt model is an asset of Dagster. `dagster dev -f churn_definitions.py`; settings are
environment variables: see the README beside this folder.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dagster
import yaml
from dagster_dbt import DbtCliResource, DbtProject, dbt_assets

HOME = os.environ["CHURN_HOME"]
BIN = Path(os.environ["CHURN_BIN"])
VARS_FILE = os.environ.get("CHURN_VARS_FILE")
VARS = yaml.safe_load(Path(VARS_FILE).read_text(encoding="utf-8")) if VARS_FILE else {}
REPORT = os.environ.get("CHURN_REPORT", "churn_report.html")
REFUSED = 3
"""Exit code of `churn-train` when the gate refuses the new model: the champion goes on."""

project = DbtProject(
    project_dir=os.environ["CHURN_PROJECT_DIR"], profiles_dir=os.environ["CHURN_PROFILES_DIR"]
)
dbt = DbtCliResource(project_dir=project, dbt_executable=str(BIN / "dbt"))
if not project.manifest_path.exists():
    dbt.cli(["parse", "--vars", json.dumps(VARS)], target_path=project.manifest_path.parent).wait()


@dbt_assets(manifest=project.manifest_path)
def churn_tables(context: dagster.AssetExecutionContext, dbt: DbtCliResource) -> Iterator:
    """Build the tables that were asked for, all of them every night."""
    yield from dbt.cli(["build", "--vars", json.dumps(VARS)], context=context).stream()


def churn_train(context: dagster.AssetExecutionContext, *arguments: str) -> int:
    """Run `churn-train` on the same warehouse as dbt and return its exit code."""
    folders = [
        "--project-dir",
        str(project.project_dir),
        "--profiles-dir",
        str(project.profiles_dir),
    ]
    command = [str(BIN / "churn-train"), *arguments, *folders, "--vars", json.dumps(VARS)]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    context.log.info(done.stdout + done.stderr)
    if done.returncode not in (0, REFUSED):
        raise dagster.Failure(
            f"churn-train {arguments[0]} ended with {done.returncode}: {done.stderr}"
        )
    return done.returncode


@dagster.asset(deps=[churn_tables])
def churn_model(context: dagster.AssetExecutionContext) -> dagster.MaterializeResult:
    """The champion: a new one is trained when one is due, and promoted when the gate lets it."""
    code = churn_train(context, "run", "--if-due", "--quiet")
    return dagster.MaterializeResult(metadata={"was_refused": code == REFUSED})


@dagster.asset(deps=[churn_model])
def churn_report(context: dagster.AssetExecutionContext) -> dagster.MaterializeResult:
    """The health page."""
    churn_train(context, "report", "--output", REPORT)
    return dagster.MaterializeResult(metadata={"path": str(Path(HOME) / REPORT)})


nightly = dagster.define_asset_job(
    "churn_nightly",
    selection="*",
    executor_def=dagster.in_process_executor,  # DuckDB lets one process open the file
)
definitions = dagster.Definitions(
    assets=[churn_tables, churn_model, churn_report],
    jobs=[nightly],
    schedules=[dagster.ScheduleDefinition(job=nightly, cron_schedule="30 3 * * *")],
    resources={"dbt": dbt},
)
