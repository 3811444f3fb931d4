"""What the gate reads: the candidate, its run and snapshot, and the warehouse as it is now."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from churn_udf.bundles import Bundle, bundle_directory, open_bundle
from churn_udf.contracts.bundle import METRICS_FILE
from churn_udf.contracts.settings import ModelSettings
from churn_udf.contracts.snapshot import conform_batch, snapshot_schema
from churn_udf.errors import ChurnError
from churn_udf.model_records import trained_until
from churn_udf.models_location import ModelsDir
from churn_udf.scoring import Scorer
from trainer.config import TrainConfig
from trainer.data.export import read_score_cutoff
from trainer.data.snapshot import Snapshot
from trainer.data.warehouse import Warehouse
from trainer.release.gate.shipped_checks import Outcomes
from trainer.runs import BUNDLE_FILE, PREDICTIONS_FILE, RUN_FILE, read_json

FloatArray: TypeAlias = npt.NDArray[np.float64]
SCORE_ROWS = 8_192


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A bundle and when the labels end that it has learned from."""

    bundle: Bundle
    trained_until: datetime.date | None
    """None where the bundle does not say."""

    @classmethod
    def open(cls, models_dir: ModelsDir, bundle_id: str) -> Model:
        """Verify a bundle.

        Raises:
            BundleError: It cannot be used.
        """
        bundle = open_bundle(bundle_directory(models_dir, bundle_id))
        manifest = bundle.manifest
        until = trained_until(manifest.training, manifest.settings.to_dict())
        return cls(bundle=bundle, trained_until=until)

    @property
    def metrics(self) -> dict[str, Any]:
        """Content of ``metrics.json``."""
        return read_json(self.bundle.directory / METRICS_FILE) or {}

    def knows(self, cutoff: datetime.date) -> bool:
        """Return whether it may have learned something of what followed a cutoff."""
        return self.trained_until is None or self.trained_until > cutoff

    def score(self, table: pa.Table, device: str) -> FloatArray:
        """Return (N,) probabilities of rows of ``snapshot_schema``.

        Raises:
            ChurnError: They cannot be scored.
        """
        scorer = Scorer.load(self.bundle, device=device)
        parts = []
        for start in range(0, table.num_rows, SCORE_ROWS):
            batch = table.slice(start, SCORE_ROWS).combine_chunks().to_batches()[0]
            names = self.bundle.feature_names
            features = np.column_stack(
                [batch.column(name).to_numpy(zero_copy_only=False) for name in names]
            )
            scores = scorer.score_arrays(
                batch.column("behavior_text"),
                batch.column("review_text_recent"),
                np.ascontiguousarray(features, dtype=np.float64),
                with_effects=False,
            )
            parts.append(scores.probabilities)
        return np.concatenate(parts) if parts else np.empty(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Predictions of the run's test, made by the fit that did not know the labels."""

    cutoff_date: datetime.date
    """The newest cutoff of the test."""
    probabilities: Mapping[str, float]
    """By user."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cutoff:
    """The rows of one cutoff."""

    outcomes: Outcomes
    table: pa.Table
    """Of ``snapshot_schema``, in the order of the outcomes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarehouseNow:
    """What the gate needs of the warehouse."""

    settings: ModelSettings
    feature_names: tuple[str, ...]
    data_end_date: datetime.date
    """The first date without data."""
    newest: Cutoff | None
    """The newest cutoff whose labels are mature; None where there is none."""
    snapshot_labels: Mapping[str, bool | None]
    """By user, at the snapshot's newest matured cutoff; None where not mature."""


def read_recipe(run_dir: Path, bundle_id: str, model: str) -> Recipe | None:
    """Return the test predictions of the run that a bundle was made of.

    Args:
        run_dir: The run's folder.
        bundle_id: A bundle that says it is of this run.
        model: Which model's predictions.

    Returns:
        None where the run is not there, or was packaged as another bundle.
    """
    packaged = read_json(run_dir / BUNDLE_FILE) or {}
    file = run_dir / PREDICTIONS_FILE
    if packaged.get("bundle_id") != bundle_id or not file.is_file():
        return None
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    if model not in table.column_names:
        return None
    table = table.filter(pc.equal(table.column("split"), "test"))
    if not table.num_rows:
        return None
    newest = pc.max(table.column("cutoff_date"))
    table = table.filter(pc.equal(table.column("cutoff_date"), newest))
    users = table.column("user_id").to_pylist()
    values = table.column(model).to_pylist()
    return Recipe(cutoff_date=newest.as_py(), probabilities=dict(zip(users, values, strict=True)))


def find_snapshot_of(
    training: Mapping[str, Any], runs_dir: Path | None, snapshots_dir: Path | None
) -> Path | None:
    """Return the folder of the snapshot that a bundle was trained on, None if it is not there.

    Args:
        training: The manifest's training facts.
        runs_dir: Folder of all runs; a run knows where its snapshot is.
        snapshots_dir: Folder of all snapshots.
    """
    snapshot_id = str(training.get("snapshot_id", ""))
    places = []
    if runs_dir is not None:
        run_dir = runs_dir / str(training.get("run_id", ""))
        facts = read_json(run_dir / RUN_FILE) or {}
        if facts.get("snapshot_id") == snapshot_id and "snapshot_path" in facts:
            places.append(run_dir / str(facts["snapshot_path"]))
    if snapshots_dir is not None and snapshot_id:
        places.append(snapshots_dir / snapshot_id)
    return next((place for place in places if place.is_dir()), None)


def newest_matured(snapshot: Snapshot) -> datetime.date | None:
    """Return the newest cutoff of a snapshot that has labels, None where none has."""
    dates = snapshot.cutoff_dates[~np.isnan(snapshot.labels)]
    return dates.max().astype("datetime64[D]").item() if len(dates) else None


def cutoff_of_snapshot(snapshot: Snapshot, cutoff: datetime.date, config: TrainConfig) -> Cutoff:
    """Return a cutoff's labelled rows, at most ``gate.max_rows``."""
    is_wanted = (snapshot.cutoff_dates == np.datetime64(cutoff, "D")) & ~np.isnan(snapshot.labels)
    rows = np.flatnonzero(is_wanted)
    if len(rows) > config.gate.max_rows:
        hashes = [hashlib.md5(user.encode()).hexdigest() for user in snapshot.user_ids(rows)]
        rows = np.sort(rows[np.argsort(hashes)[: config.gate.max_rows]])
    table = snapshot.table.take(pa.array(rows))
    return _cutoff(table, cutoff, config, f"snapshot {snapshot.snapshot_id}")


def read_warehouse(
    warehouse: Warehouse, snapshot_cutoff: datetime.date | None, config: TrainConfig
) -> WarehouseNow:
    """Read what the gate needs of the warehouse.

    Args:
        warehouse: Where ``churn_examples`` is.
        snapshot_cutoff: The snapshot's newest matured cutoff.
        config: Settings.

    Raises:
        WarehouseError: The tables are missing, or were built with other settings.
        SnapshotSchemaError: The rows break the contract.
    """
    context = warehouse.context
    names = tuple(feature.name for feature in context.features)
    schema = snapshot_schema(names)
    examples, bounds = (context.relation(one) for one in ("churn_examples", "int_data_bounds"))
    with warehouse.cursor() as cursor:
        score_cutoff = read_score_cutoff(cursor, context)
        (data_end,) = cursor.execute(f"select data_end_date from {bounds}").fetchall()[0]
        (newest,) = cursor.execute(
            f"select max(cutoff_date) from {examples} where is_label_mature "
            f"and cutoff_date <= date '{score_cutoff.isoformat()}'"
        ).fetchall()[0]
        labels: dict[str, bool | None] = {}
        if snapshot_cutoff is not None:
            found = cursor.execute(
                f"select user_id, is_churned from {examples} "
                f"where cutoff_date = date '{snapshot_cutoff.isoformat()}'"
            ).fetchall()
            labels = dict(found)
        rows = None
        if newest is not None:
            columns = ", ".join(f'"{name}"' for name in schema.names)
            query = (
                f"select {columns} from {examples} where cutoff_date = date "
                f"'{newest.isoformat()}' and is_label_mature order by md5(user_id) "
                f"limit {config.gate.max_rows}"
            )
            batches = [conform_batch(one, schema) for one in warehouse.stream(cursor, query)]
            rows = pa.Table.from_batches(batches, schema).sort_by("user_id")
    return WarehouseNow(
        settings=context.model_settings,
        feature_names=names,
        data_end_date=data_end,
        newest=None if rows is None else _cutoff(rows, newest, config, "the warehouse"),
        snapshot_labels=labels,
    )


def open_snapshot(path: Path | None) -> tuple[Snapshot | None, str]:
    """Return a verified snapshot, or why there is none."""
    if path is None:
        return None, ""
    try:
        return Snapshot.open(path), ""
    except ChurnError as error:
        return None, str(error)


def _cutoff(table: pa.Table, cutoff: datetime.date, config: TrainConfig, source: str) -> Cutoff:
    """Return rows of ``snapshot_schema`` with their outcomes."""
    recency = config.evaluate.recency_feature
    known = recency in table.column_names
    outcomes = Outcomes(
        cutoff_date=cutoff,
        users=np.asarray(table.column("user_id").to_pylist()),
        labels=table.column("is_churned").cast(pa.float64()).to_numpy().astype(np.float64),
        recency=table.column(recency).to_numpy() if known else None,
        source=source,
    )
    return Cutoff(outcomes=outcomes, table=table)
