"""Night after night: load what has arrived, build, retrain if due, and note every alarm."""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from click.testing import CliRunner, Result

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "dbt_project"
REFUSED = 3
ALARMING = {"fail": "error", "error": "error", "warn": "warn"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Night:
    """What one night said."""

    cutoff_date: datetime.date
    alarms: dict[str, str]
    """Test or model that warned or failed -> ``warn`` or ``error``."""
    due: tuple[str, ...]
    """Why a new model was due."""
    was_trained: bool
    was_refused: bool
    champion_id: str | None
    """Who scores from the next night on."""


class Replay:
    """A warehouse, its scheduler and its clock.

    Args:
        root: An empty folder.
        events: Events with `arrives_on`; see ``shop.shop_events``.
        dbt_vars: Windows and the like.
        settings: Flags of ``churn-train run``, such as ``("--set", "fit.epochs=1")``.
    """

    def __init__(
        self,
        root: Path,
        events: pa.Table,
        dbt_vars: Mapping[str, Any],
        settings: Sequence[str],
    ) -> None:
        self.root = root
        self.events = events
        self.settings = list(settings)
        self.nights: list[Night] = []
        self.database = root / "warehouse.duckdb"
        self.models_dir = root / "models"
        self.project_dir = root / "dbt_project"
        self.vars = {**dbt_vars, "churn__events_path": str(root / "events.parquet")}
        self._manifest: Any = None
        ignored = shutil.ignore_patterns("target", "logs")
        shutil.copytree(PACKAGE, self.project_dir, ignore=ignored)
        plugin = {
            "module": "churn_udf.warehouse.duckdb_plugin",
            "alias": "churn",
            "config": {"models_dir": str(self.models_dir)},
        }
        output = {
            "type": "duckdb",
            "path": str(self.database),
            "schema": "main",
            "threads": 2,
            "settings": {"TimeZone": "UTC"},
            "plugins": [plugin],
        }
        profile = {"churn_scoring": {"target": "dev", "outputs": {"dev": output}}}
        (root / "profiles.yml").write_text(yaml.safe_dump(profile), encoding="utf-8")

    def night(self, cutoff: datetime.date, *, should_retrain: bool = True) -> Night:
        """Do what a scheduler does in the night to `cutoff`, and return what it heard."""
        self.load(cutoff)
        outcome = self.dbt("build", "--exclude-resource-type", "unit_test")
        alarms = {
            result.node.name: ALARMING[str(result.status)]
            for result in outcome.result
            if str(result.status) in ALARMING
        }
        retraining: dict[str, Any] = {}
        code = 0
        if should_retrain:
            told = self.churn_train("run", "--if-due", "--json", *self.settings, folders=True)
            code = told.exit_code
            assert code in (0, REFUSED), told.output + told.stderr
            retraining = json.loads(told.stdout)
        night = Night(
            cutoff_date=cutoff,
            alarms=alarms,
            due=tuple(retraining.get("retraining", {}).get("reasons", ())),
            was_trained=bool(retraining.get("was_run")),
            was_refused=code == REFUSED,
            champion_id=self.champion_id(),
        )
        self.nights.append(night)
        return night

    def load(self, cutoff: datetime.date) -> None:
        """Put all events that have arrived by `cutoff` where dbt reads them, and set the clock."""
        arrived = self.events.filter(pc.less_equal(self.events["arrives_on"], pa.scalar(cutoff)))
        pq.write_table(arrived.drop_columns(["arrives_on"]), self.vars["churn__events_path"])
        self.vars["churn__as_of"] = f"{cutoff.isoformat()} 03:30:00"

    def dbt(self, *arguments: str) -> Any:
        """Run a dbt command in this process and return dbtRunner's result, whatever it is."""
        from dbt.adapters.duckdb.connections import DuckDBConnectionManager
        from dbt.cli.main import dbtRunner

        options = ["--project-dir", str(self.project_dir), "--profiles-dir", str(self.root)]
        options += ["--target-path", str(self.root / "target"), "--log-path", str(self.root)]
        options += ["--log-level-file", "none", "--quiet", "--vars", json.dumps(self.vars)]
        try:
            if self._manifest is None:
                self._manifest = dbtRunner().invoke(["parse", *options]).result
            return dbtRunner(self._manifest).invoke([*arguments, *options])
        finally:
            if DuckDBConnectionManager._ENV is not None:
                DuckDBConnectionManager._ENV.close()
                DuckDBConnectionManager._ENV = None

    @staticmethod
    def command(*arguments: str) -> Result:
        """Run a ``churn-train`` command that needs no warehouse in this process."""
        from trainer.cli import main

        return CliRunner().invoke(main, list(arguments))

    def churn_train(self, *arguments: str, folders: bool = False) -> Result:
        """Run a ``churn-train`` command on this warehouse in this process."""
        options = ["--project-dir", str(self.project_dir), "--profiles-dir", str(self.root)]
        options += ["--vars", json.dumps(self.vars)]
        if folders:
            options += ["--runs-dir", str(self.root / "runs")]
            options += ["--snapshots-dir", str(self.root / "snapshots")]
        return self.command(*arguments, *options)

    def champion_id(self) -> str | None:
        """Return who scores."""
        from churn_udf.registry import read_registry

        return read_registry(self.models_dir).champion_id if self.models_dir.exists() else None

    def table(self, sql: str) -> pa.Table:
        """Return a query's result."""
        with duckdb.connect(str(self.database), read_only=True) as connection:
            connection.execute("set TimeZone = 'UTC'")
            return connection.sql(sql).to_arrow_table()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return a query's rows."""
        return [tuple(row.values()) for row in self.table(sql).to_pylist()]
