"""Harness for tests that run dbt on a scratch DuckDB file, in this process.

    def test_something(dbt_project):
        path = dbt_project.events_parquet([
            {"user_id": "u1", "event_type": "purchase", "event_ts": "2024-01-01 10:00:00"},
        ])
        dbt_project.vars = {"churn__events_path": path}
        dbt_project.build(select="+int_cutoffs_spined")           # fails the test on an error
        rows = dbt_project.query("select user_id from stg_churn__events")   # list of tuples
        message = dbt_project.build_fails(vars={"churn__horizon_days": 0})  # the error text

``dbt_project`` is empty for each test; ``make_dbt_project()`` makes more of them, and
``module_dbt_project`` is one per test file, for a build that many tests read. Parsing takes
seconds, so the session keeps each parsed manifest and parses again only when a var differs that
dbt reads while parsing (``GRAPH_VARS``: where the inputs lie); ``dbt_project`` always lies in the
same folder for that reason. ``vars`` of a call are laid over ``dbt_project.vars``; a value of
``None`` removes a var. ``execute`` changes the database between
runs, ``query`` and ``table`` read it; dbt's own connection is closed after every call, so both
always see what is on disk. ``warnings`` holds the warnings of the latest call.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.util
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from dbt_runs import Workload, prepare

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT_DIR = REPOSITORY / "dbt_project"

GRAPH_VARS = (
    "churn__events_path",
    "churn__events_relation",
    "churn__users_path",
    "churn__users_relation",
)
"""Vars that shape the graph itself; all others are read when a model is compiled."""

_MANIFESTS: dict[str, Any] = {}

EVENT_TYPES: Mapping[str, pa.DataType] = {
    "user_id": pa.string(),
    "event_type": pa.string(),
    "event_ts": pa.timestamp("us"),
    "order_id": pa.string(),
    "item_id": pa.string(),
    "item_name": pa.string(),
    "category": pa.string(),
    "amount": pa.float64(),
    "quantity": pa.float64(),
    "rating": pa.float64(),
    "review_text": pa.string(),
    "discount_amount": pa.float64(),
}


def events_table(
    rows: Iterable[Mapping[str, Any]],
    types: Mapping[str, pa.DataType] | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Return raw events in the input contract's shape; what a row leaves out is null.

    Args:
        rows: One mapping of column to value per event; times may be ISO text.
        types: Arrow types that differ from the contract's, or of further columns.
        columns: The columns to keep; default all of the contract and of ``types``.
    """
    all_types = {**EVENT_TYPES, **(types or {})}
    rows = list(rows)
    unknown = {name for row in rows for name in row} - set(all_types)
    assert not unknown, f"no such event columns: {sorted(unknown)}"
    arrays = {
        name: pa.array([_value(row.get(name), all_types[name]) for row in rows], all_types[name])
        for name in columns or all_types
    }
    return pa.table(arrays)


def _value(value: Any, data_type: pa.DataType) -> Any:
    if isinstance(value, str) and pa.types.is_timestamp(data_type):
        return datetime.datetime.fromisoformat(value)
    if isinstance(value, str) and pa.types.is_date(data_type):
        return datetime.date.fromisoformat(value)
    return value


@dataclasses.dataclass
class DbtProject:
    """The dbt package, run as root project on one scratch DuckDB file."""

    root: Path
    """Scratch folder: profiles.yml, warehouse.duckdb, event files, models/ for bundles."""
    target_path: Path
    """Where dbt writes manifest.json, compiled/ and run_results.json; shared by the session."""
    vars: dict[str, Any] = dataclasses.field(default_factory=dict)
    project_dir: Path = PROJECT_DIR
    warnings: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        output: dict[str, Any] = {
            "type": "duckdb",
            "path": str(self.database),
            "schema": "main",
            "threads": 2,
            "settings": {"TimeZone": "UTC"},
        }
        if importlib.util.find_spec("churn_udf.warehouse.duckdb_plugin") is not None:
            output["plugins"] = [
                {
                    "module": "churn_udf.warehouse.duckdb_plugin",
                    "alias": "churn",
                    "config": {"models_dir": str(self.models_dir)},
                }
            ]
        profile = {"churn_scoring": {"target": "dev", "outputs": {"dev": output}}}
        (self.root / "profiles.yml").write_text(yaml.safe_dump(profile), encoding="utf-8")

    @property
    def database(self) -> Path:
        """The DuckDB file."""
        return self.root / "warehouse.duckdb"

    @property
    def models_dir(self) -> Path:
        """Where the plugin of this project looks for bundles and the champion."""
        return self.root / "models"

    def events_parquet(
        self, rows: Iterable[Mapping[str, Any]], name: str = "events.parquet", **options: Any
    ) -> str:
        """Write raw events (see ``events_table``) and return the file's path."""
        path = self.root / name
        pq.write_table(events_table(rows, **options), path)
        return str(path)

    def invoke(
        self,
        command: str | Sequence[str],
        select: str | None = None,
        vars: Mapping[str, Any] | None = None,
        args: Sequence[str] = (),
    ) -> Any:
        """Run a dbt command and return dbtRunner's result, whatever it is."""
        from dbt.cli.main import dbtRunner

        merged = {**self.vars, **(vars or {})}
        kept = {name: value for name, value in merged.items() if value is not None}
        options = ["--project-dir", str(self.project_dir), "--profiles-dir", str(self.root)]
        options += ["--no-use-colors"]
        # dbt never closes its log file, which pytest would report.
        options += ["--log-path", str(self.root / "logs"), "--log-level-file", "none"]
        options += ["--vars", json.dumps(kept, ensure_ascii=False)]
        arguments = [command] if isinstance(command, str) else list(command)
        if arguments[0] != "deps":
            options += ["--target-path", str(self.target_path)]
        selection = ["--select", *select.split()] if select else []
        self.warnings = []
        key = json.dumps([str(self.project_dir), {name: kept.get(name) for name in GRAPH_VARS}])
        try:
            is_parsed_anew = arguments[0] in ("parse", "deps")
            if key not in _MANIFESTS and not is_parsed_anew:
                parsed = dbtRunner().invoke(["parse", *options])
                if not parsed.success:
                    return parsed
                _MANIFESTS[key] = parsed.result
            manifest = None if is_parsed_anew else _MANIFESTS[key]
            runner = dbtRunner(manifest, callbacks=[self._collect_warning])
            return runner.invoke([*arguments, *options, *selection, *args])
        finally:
            self.close()

    def succeed(self, command: str | Sequence[str], **options: Any) -> Any:
        """Run a dbt command that must succeed; return its result object."""
        outcome = self.invoke(command, **options)
        assert outcome.success, f"dbt {command} failed: {error_text(outcome)}"
        return outcome.result

    def build(self, select: str | None = None, **options: Any) -> Any:
        """Run `dbt build`, which must succeed (options: vars, args)."""
        return self.succeed("build", select=select, **options)

    def run(self, select: str | None = None, **options: Any) -> Any:
        """Run `dbt run`, which must succeed (options: vars, args)."""
        return self.succeed("run", select=select, **options)

    def test(self, select: str | None = None, **options: Any) -> Any:
        """Run `dbt test`, which must succeed (options: vars, args)."""
        return self.succeed("test", select=select, **options)

    def build_fails(
        self, select: str | None = None, command: str | Sequence[str] = "build", **options: Any
    ) -> str:
        """Run a dbt command that must fail; return all error messages."""
        outcome = self.invoke(command, select=select, **options)
        assert not outcome.success, f"dbt {command} succeeded; it should have failed"
        return error_text(outcome)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self._connect() as connection:
            return connection.execute(sql).fetchall()

    def table(self, sql: str) -> pa.Table:
        """Return a query's result as an Arrow table."""
        with self._connect() as connection:
            return connection.sql(sql).to_arrow_table()

    def execute(self, *statements: str) -> None:
        """Run SQL that changes the database."""
        with self._connect() as connection:
            for statement in statements:
                connection.execute(statement)

    def load(self, name: str, table: pa.Table) -> None:
        """Store an Arrow table as a table of the database; `name` may have a schema."""
        with self._connect() as connection:
            if "." in name:
                connection.execute(f"create schema if not exists {name.split('.')[0]}")
            connection.register("arrow_table", table)
            connection.execute(f"create or replace table {name} as from arrow_table")

    @staticmethod
    def close() -> None:
        """Close the connection that dbt-duckdb keeps open between calls in one process."""
        from dbt.adapters.duckdb.connections import DuckDBConnectionManager

        environment = DuckDBConnectionManager._ENV
        if environment is not None:
            environment.close()
            DuckDBConnectionManager._ENV = None

    def _connect(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(str(self.database))
        connection.execute("set TimeZone = 'UTC'")
        return connection

    def _collect_warning(self, event: Any) -> None:
        if event.info.level == "warn":
            self.warnings.append(event.info.msg)


def error_text(outcome: Any) -> str:
    """Return what a dbtRunner result says about errors and failed tests, one per line."""
    messages = [str(outcome.exception)] if outcome.exception else []
    messages += [
        f"{result.node.name}: {result.message}"
        for result in getattr(outcome.result, "results", None) or []
        if str(result.status) in ("error", "fail", "runtime error")
    ]
    return "\n".join(messages)


@pytest.fixture(scope="session")
def dbt_target_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One target path for all projects of the session."""
    return tmp_path_factory.mktemp("dbt_target")


@pytest.fixture(scope="session", autouse=True)
def _no_leaked_event_loops() -> Iterator[None]:
    """Keep dbt-duckdb from leaving an event loop open in each thread that runs Python models."""
    from dbt.adapters.duckdb import environments

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environments, "_ensure_event_loop", lambda: None)
        yield


@pytest.fixture(scope="session")
def make_dbt_project(
    tmp_path_factory: pytest.TempPathFactory, dbt_target_path: Path
) -> Callable[..., DbtProject]:
    """Return a function that makes projects with a folder and database of their own."""

    def make(**options: Any) -> DbtProject:
        return DbtProject(tmp_path_factory.mktemp("dbt"), dbt_target_path, **options)

    return make


@pytest.fixture(scope="module")
def module_dbt_project(make_dbt_project: Callable[..., DbtProject]) -> DbtProject:
    """A project that the tests of one file share."""
    return make_dbt_project()


@pytest.fixture
def dbt_project(
    tmp_path_factory: pytest.TempPathFactory, dbt_target_path: Path
) -> Iterator[DbtProject]:
    """A project with an empty folder and database, for one test."""
    root = tmp_path_factory.getbasetemp() / "dbt_project"
    shutil.rmtree(root, ignore_errors=True)
    yield DbtProject(root, dbt_target_path)
    DbtProject.close()


@pytest.fixture(scope="session")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workload]:
    """A warehouse with everything to score, and a server of dbt processes to disturb."""
    workload = prepare(tmp_path_factory.mktemp("workload"))
    with workload.server:
        yield workload
