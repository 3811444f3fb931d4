"""A small warehouse in a DuckDB file, filled by hand around the tiny trained champion."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from training_example import Trained

from trainer.data.snapshot import Snapshot
from trainer.data.warehouse import ChurnContext, WarehouseOptions

DAY = datetime.timedelta(days=1)
HASH = "settings"
MONITORING = {
    "churn_score_drift": "bundle_id varchar, subject_type varchar, subject varchar, "
    "severity varchar, cutoff_date date",
    "churn_model_performance": "bundle_id varchar, user_count bigint, churned_count bigint, "
    "auroc double, log_loss double, calibration_error double, is_out_of_time boolean, "
    "cutoff_date date",
    "churn_calibration_bins": "bundle_id varchar, bin_number integer, user_count bigint, "
    "mean_probability double, cutoff_date date",
    "churn_score_outcomes": "bundle_id varchar, churn_probability double, is_churned boolean, "
    "cutoff_date date",
}


@dataclasses.dataclass
class SmallWarehouse:
    """What ``trainer.data.warehouse.Warehouse`` is to the trainer; opened the same way."""

    path: Path
    context: ChurnContext
    options: WarehouseOptions = dataclasses.field(default_factory=WarehouseOptions)

    @contextlib.contextmanager
    def cursor(self) -> Iterator[Any]:
        """Open the file, and close it again."""
        with duckdb.connect(str(self.path)) as connection:
            yield connection.cursor()

    def stream(self, cursor: Any, query: str, *, rows: int = 8_192) -> pa.RecordBatchReader:
        """Run a query."""
        return cursor.sql(query).to_arrow_reader(rows)

    def execute(self, sql: str, *parameters: Any) -> None:
        """Change the database."""
        with duckdb.connect(str(self.path)) as connection:
            connection.execute(sql, list(parameters))

    def load(self, name: str, table: pa.Table) -> None:
        """Append rows to a table."""
        with duckdb.connect(str(self.path)) as connection:
            connection.register("rows", table)
            connection.execute(f"insert into {name} by name from rows")

    def set_score_cutoff(self, cutoff: datetime.date) -> None:
        """Let time pass."""
        self.execute("update int_cutoffs_spined set cutoff_date = ?", cutoff)

    def mature(self, cutoff: datetime.date) -> None:
        """Let the labels of a cutoff be known: every third one churned."""
        self.execute(
            "update churn_examples set is_label_mature = true, "
            "is_churned = hash(user_id) % 3 = 0 where cutoff_date = ?",
            cutoff,
        )

    def drift(self, bundle_id: str, cutoff: datetime.date, **severities: str) -> None:
        """Add features to the drift table."""
        for subject, severity in severities.items():
            self.execute(
                "insert into churn_score_drift values (?, 'feature', ?, ?, ?)",
                *(bundle_id, subject, severity, cutoff),
            )


def small_warehouse(trained: Trained, *, with_monitoring: bool = True) -> SmallWarehouse:
    """Make the warehouse that the trained snapshot was exported from."""
    snapshot: Snapshot = trained.snapshot
    path = trained.root / "warehouse.duckdb"
    names = ("churn_examples", "int_cutoffs_spined", *MONITORING)
    context = ChurnContext(
        settings=dict(snapshot.document["settings"]),
        relations={name: f'"{name}"' for name in names},
        features=snapshot.features,
        settings_hash=HASH,
        document={"project": "shop"},
    )
    with duckdb.connect(str(path)) as connection:
        connection.register("rows", snapshot.table)
        connection.execute("create table churn_examples as from rows")
        connection.execute(
            "create table int_cutoffs_spined as select cast(? as date) as cutoff_date, "
            "? as settings_hash, true as is_score_cutoff, false as is_training_cutoff",
            [snapshot.document["score_cutoff_date"], HASH],
        )
        for name, columns in MONITORING.items() if with_monitoring else ():
            connection.execute(f"create table {name} ({columns})")
    return SmallWarehouse(path, context)
