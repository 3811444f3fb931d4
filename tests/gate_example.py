"""What tests of the gate share: bad copies of a bundle, and a table that stands in for dbt's."""

from __future__ import annotations

import contextlib
import datetime
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from churn_udf.bundles import bundle_directory, open_bundle, write_bundle
from churn_udf.calibration import Calibrator
from churn_udf.contracts.bundle import CALIBRATION_FILE, MANIFEST_FILE
from trainer.data.snapshot import Snapshot
from trainer.data.warehouse import ChurnContext, Warehouse

BACKWARDS = Calibrator(kind="platt", params={"a": [-1.0], "b": [0.0]})
"""Turns every score around."""


def copy_of_bundle(
    models_dir: Path,
    bundle_id: str,
    calibrator: Calibrator | None = BACKWARDS,
    change: Callable[[dict[str, Any]], None] = lambda _: None,
) -> str:
    """Package a copy of a bundle that claims all that the original claims; return its id.

    Args:
        models_dir: Where the bundle is.
        bundle_id: The original.
        calibrator: What it scores with instead; None keeps the original's.
        change: Changes the manifest's training facts.
    """
    source = open_bundle(bundle_directory(models_dir, bundle_id))
    training = dict(source.manifest.training)
    change(training)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "bundle"
        shutil.copytree(source.directory, copy)
        if calibrator is not None:
            (copy / CALIBRATION_FILE).write_text(calibrator.to_json(), encoding="utf-8")
        files: dict[str, Path | str | bytes] = {
            path.relative_to(copy).as_posix(): path
            for path in copy.rglob("*")
            if path.is_file() and path.name != MANIFEST_FILE
        }
        return write_bundle(
            models_dir,
            files=files,
            settings=source.manifest.settings,
            features=source.manifest.features,
            training=training,
            versions=source.manifest.versions,
        ).bundle_id


class StandIn:
    """What the gate needs of a warehouse, over one connection with the rows of a snapshot."""

    options = None

    def __init__(self, snapshot: Snapshot, connection: Any, **settings: object) -> None:
        self.connection = connection
        names = ("churn_examples", "int_data_bounds", "int_cutoffs_spined")
        self.context = ChurnContext(
            settings={**snapshot.settings, **settings},
            relations={name: name for name in names},
            features=snapshot.features,
            settings_hash="h",
            document={},
        )

    @contextlib.contextmanager
    def cursor(self) -> Iterator[Any]:
        yield self.connection.cursor()

    stream = Warehouse.stream


@contextlib.contextmanager
def warehouse_of(snapshot: Snapshot) -> Iterator[StandIn]:
    """Put the rows of a snapshot where dbt would have."""
    score_cutoff = datetime.date.fromisoformat(snapshot.document["score_cutoff_date"])
    table: pa.Table = snapshot.table
    with duckdb.connect() as session:
        session.register("rows", table)
        session.execute("create table churn_examples as from rows")
        session.execute(
            f"create table int_data_bounds as select date '{score_cutoff}' as data_end_date"
        )
        session.execute(
            f"create table int_cutoffs_spined as select date '{score_cutoff}' as cutoff_date, "
            "'h' as settings_hash, true as is_score_cutoff"
        )
        yield StandIn(snapshot, session)
