"""Three nights with each real scheduler: before a model, when one is due, and when none is."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from shop_example import SHOP_VARS, SMALL_TRAINING, shop_events

REPOSITORY = Path(__file__).resolve().parents[3]
EXAMPLES = REPOSITORY / "examples" / "schedulers"
BIN = REPOSITORY / ".venv" / "bin"
REFUSED = 3
FAKE = """#!/bin/sh
echo "$1 $2" >> "$CHURN_HOME/calls"
[ "$1" != run ] || exit "$(cat "$CHURN_HOME/exit_code")"
"""


@dataclasses.dataclass(frozen=True)
class Shop:
    """A folder with events, vars and a warehouse."""

    home: Path
    environment: dict[str, str]

    def query(self, sql: str) -> list[tuple[object, ...]]:
        with duckdb.connect(str(self.home / "churn.duckdb"), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def run(self, *command: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(part) for part in command],
            cwd=self.home,
            env=self.environment | changes,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    home = tmp_path / "home"
    home.mkdir()
    pq.write_table(pa.Table.from_pylist(shop_events(160)), home / "events.parquet")
    dbt_vars = {**SHOP_VARS, "churn__events_path": str(home / "events.parquet")}
    (home / "vars.yml").write_text(yaml.safe_dump(dbt_vars), encoding="utf-8")
    project = tmp_path / "dbt_project"
    shutil.copytree(
        REPOSITORY / "dbt_project", project, ignore=shutil.ignore_patterns("target", "logs")
    )
    known = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = {
        **known,
        "CHURN_HOME": str(home),
        "CHURN_PROJECT_DIR": str(project),
        "CHURN_PROFILES_DIR": str(REPOSITORY / "profiles"),
        "CHURN_VARS_FILE": str(home / "vars.yml"),
        "CHURN_BIN": str(BIN),
        "CHURN_DUCKDB_PATH": str(home / "churn.duckdb"),
        "CHURN_MODELS_DIR": str(home / "models"),
        "CHURN_REPORT": "health.html",
        "OMP_NUM_THREADS": "1",
        **{f"CHURN_TRAIN_{name}": value for name, value in SMALL_TRAINING.items()},
    }
    return Shop(home, environment)


def cron_night(shop: Shop, **changes: str) -> subprocess.CompletedProcess[str]:
    """Do what the line of the crontab does."""
    return shop.run("make", "-f", EXAMPLES / "cron" / "Makefile", "nightly", **changes)


def airflow_night(shop: Shop, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the DAG with Airflow's own command."""
    settings = {
        "AIRFLOW_HOME": str(shop.home / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        **changes,
    }
    airflow = REPOSITORY / ".venv-airflow" / "bin" / "airflow"
    migrated = shop.run(airflow, "db", "migrate", **settings)
    assert migrated.returncode == 0, migrated.stderr
    return shop.run(airflow, "dags", "test", "churn_nightly", **settings)


def dagster_night(shop: Shop, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the job with Dagster's own command."""
    home = shop.home / "dagster"
    home.mkdir(exist_ok=True)
    file = EXAMPLES / "dagster" / "churn_definitions.py"
    dagster = REPOSITORY / ".venv-dagster" / "bin" / "dagster"
    command = (dagster, "job", "execute", "-f", file, "-j", "churn_nightly")
    return shop.run(*command, DAGSTER_HOME=str(home), **changes)


def with_fake_trainer(shop: Shop, exit_code: int) -> str:
    """Return a folder with the real dbt and a churn-train that ends as told."""
    folder = shop.home / "bin"
    folder.mkdir(exist_ok=True)
    if not (folder / "dbt").exists():
        (folder / "dbt").symlink_to(BIN / "dbt")
    (folder / "churn-train").write_text(FAKE, encoding="utf-8")
    (folder / "churn-train").chmod(0o755)
    (shop.home / "exit_code").write_text(str(exit_code), encoding="utf-8")
    return str(folder)


NIGHTS = {"cron": cron_night, "airflow": airflow_night, "dagster": dagster_night}


@pytest.mark.parametrize("tool", list(NIGHTS))
def test_three_nights(shop: Shop, tool: str) -> None:
    night: Callable[..., subprocess.CompletedProcess[str]] = NIGHTS[tool]

    refused = night(shop, CHURN_BIN=with_fake_trainer(shop, REFUSED))
    assert refused.returncode == 0, refused.stdout[-3_000:] + refused.stderr[-3_000:]
    calls = (shop.home / "calls").read_text(encoding="utf-8").splitlines()
    assert [call.split()[0] for call in calls] == ["run", "report"]
    assert shop.query("select count(*) from churn_examples")[0][0] > 100
    assert shop.query("select count(*) from churn_scores") == [(0,)]

    due = night(shop)
    assert due.returncode == 0, due.stdout[-3_000:] + due.stderr[-3_000:]
    listed = shop.run(BIN / "churn-train", "models", "list", "--json")
    stages = [model["stage"] for model in json.loads(listed.stdout)["models"]]
    assert stages == ["champion"]

    not_due = night(shop)
    assert not_due.returncode == 0, not_due.stdout[-3_000:] + not_due.stderr[-3_000:]
    assert shop.query("select count(*) from churn_scores_current")[0][0] > 20
    listed = shop.run(BIN / "churn-train", "models", "list", "--json")
    assert len(json.loads(listed.stdout)["models"]) == 1
    assert "<html" in (shop.home / "health.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("tool", list(NIGHTS))
def test_failed_retraining_is_a_failure_and_not_the_end_of_the_night(shop: Shop, tool: str) -> None:
    failed = NIGHTS[tool](shop, CHURN_BIN=with_fake_trainer(shop, 1))
    calls = (shop.home / "calls").read_text(encoding="utf-8").splitlines()
    told = failed.stdout + failed.stderr
    assert failed.returncode != 0 or "failed" in told.lower(), told[-3_000:]
    if tool != "dagster":  # whose assets do not run after one that failed
        assert calls[-1].split()[0] == "report"
