"""Nightly churn scores on Airflow 3 with astronomer-cosmos: score, retrain if due, report.

Settings are environment variables of the Airflow worker: see the README beside this folder.
"""

from __future__ import annotations

import json
import os
import shlex
from datetime import datetime, timezone
from pathlib import Path

import yaml
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from cosmos import ProfileConfig
from cosmos.constants import InvocationMode
from cosmos.operators.local import DbtBuildLocalOperator

HOME = os.environ["CHURN_HOME"]
PROJECT_DIR = os.environ["CHURN_PROJECT_DIR"]
PROFILES_DIR = os.environ["CHURN_PROFILES_DIR"]
BIN = Path(os.environ["CHURN_BIN"])
VARS_FILE = os.environ.get("CHURN_VARS_FILE")
VARS = yaml.safe_load(Path(VARS_FILE).read_text(encoding="utf-8")) if VARS_FILE else {}
REPORT = os.environ.get("CHURN_REPORT", "churn_report.html")
REFUSED = 3
"""Exit code of `churn-train` when the gate refuses the new model: the champion goes on."""


def churn_train(*arguments: str) -> str:
    """Return a shell line that runs `churn-train` on the same warehouse as dbt."""
    folders = ["--project-dir", PROJECT_DIR, "--profiles-dir", PROFILES_DIR]
    command = [str(BIN / "churn-train"), *arguments, *folders, "--vars", json.dumps(VARS)]
    return shlex.join(command)


with DAG(
    dag_id="churn_nightly",
    schedule="30 3 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,  # DuckDB lets one process open the file
    doc_md=__doc__,
) as dag:
    score = DbtBuildLocalOperator(
        task_id="score",
        project_dir=PROJECT_DIR,
        profile_config=ProfileConfig(
            profile_name="churn_scoring",
            target_name="dev",
            profiles_yml_filepath=Path(PROFILES_DIR) / "profiles.yml",
        ),
        dbt_executable_path=str(BIN / "dbt"),
        invocation_mode=InvocationMode.SUBPROCESS,
        install_deps=False,
        vars=VARS,
    )
    # skipped, not failed, when the gate refuses the new model
    retrain = BashOperator(
        task_id="retrain_if_due",
        bash_command=churn_train("run", "--if-due", "--quiet"),
        cwd=HOME,
        skip_on_exit_code=REFUSED,
        trigger_rule="all_done",  # what fails the build, such as drift, may be what makes it due
    )
    report = BashOperator(
        task_id="report",
        bash_command=churn_train("report", "--output", REPORT),
        cwd=HOME,
        trigger_rule="all_done",
    )
    # the last task decides about the night: one that failed before it is not hidden
    night = EmptyOperator(task_id="night_succeeded", trigger_rule="none_failed")
    score >> retrain >> report
    [score, retrain, report] >> night
