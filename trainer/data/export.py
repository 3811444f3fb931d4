"""Export: rows of ``churn_examples`` become a snapshot directory.

The directory is written under a temporary name and renamed when it is whole and verified, so a
killed export leaves nothing that looks like a snapshot.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from churn_udf.contracts.bundle import FeatureSpec, sha256_of_file
from churn_udf.contracts.settings import ModelSettings
from churn_udf.contracts.snapshot import (
    PROFILE_SCHEMA,
    PROFILES_FILE,
    SNAPSHOT_FILE,
    SNAPSHOT_VERSION,
    conform_batch,
    feature_names_of,
    snapshot_schema,
)
from churn_udf.errors import SnapshotSchemaError
from trainer.data.snapshot import Snapshot, SnapshotConfig, snapshot_identity
from trainer.data.warehouse import BUILD_HINT, ChurnContext, Warehouse
from trainer.errors import SnapshotIntegrityError, SnapshotNotFoundError, WarehouseError
from trainer.progress import Progress, Step

PARTIAL_PREFIX = ".partial-"
PROFILES_MODEL = "stg_churn__users"
ABANDONED_SECONDS = 24 * 3600
"""A half-written snapshot this old belongs to no export that is still running."""


def export_snapshot(
    warehouse: Warehouse,
    snapshots_dir: Path,
    *,
    config: SnapshotConfig | None = None,
    progress: Progress | None = None,
) -> Snapshot:
    """Copy ``churn_examples`` up to the score cutoff into a snapshot.

    Cutoffs that were scored before stay in the warehouse and teach once their labels mature, but
    none from before the oldest training cutoff: else a model, and the reference that drift is
    measured against, would keep what ``churn__max_training_cutoffs`` has let go.

    Args:
        warehouse: Where the table is.
        snapshots_dir: Folder of all snapshots; made when missing.
        config: Shard size.
        progress: Shows the rows read.

    Raises:
        WarehouseError: The tables are missing, or were built with other settings.
        SnapshotSchemaError: The rows break the contract.
    """
    progress = progress or Progress(quiet=True)
    context = warehouse.context
    names = [feature.name for feature in context.features]
    columns = ", ".join(f'"{name}"' for name in snapshot_schema(names).names)
    examples = context.relation("churn_examples")
    with warehouse.cursor() as cursor:
        score_cutoff = read_score_cutoff(cursor, context)
        oldest_cutoff = _read_oldest_cutoff(cursor, context)
        scope = f"from {examples} where cutoff_date between '{oldest_cutoff}' and '{score_cutoff}'"
        total = int(cursor.execute(f"select count(*) {scope}").fetchall()[0][0])
        profiles = _read_profiles(warehouse, cursor, scope)
        query = f"select {columns} {scope} order by cutoff_date, user_id"
        with progress.step("snapshot", total=total) as step:
            return write_snapshot(
                _counted(warehouse.stream(cursor, query), step),
                features=context.features,
                settings=context.settings,
                score_cutoff_date=score_cutoff,
                provenance=context.provenance(warehouse.options),
                snapshots_dir=snapshots_dir,
                config=config,
                profiles=profiles,
            )


def _read_profiles(warehouse: Warehouse, cursor: Any, scope: str) -> pa.Table | None:
    """Return the profiles of the users of these rows, or None where the team has none."""
    relation = warehouse.context.relations.get(PROFILES_MODEL)
    if relation is None:
        return None
    query = (
        f"select user_id, profile_json from {relation} where profile_field_count > 0 "
        f"and user_id in (select user_id {scope}) order by user_id"
    )
    reader = warehouse.stream(cursor, query)
    batches = [conform_batch(batch, PROFILE_SCHEMA) for batch in reader]
    return pa.Table.from_batches(batches, PROFILE_SCHEMA)


def read_score_cutoff(cursor: Any, context: ChurnContext) -> datetime.date:
    """Return the cutoff that scoring uses, checked against the settings in use.

    Raises:
        WarehouseError: No score cutoff, or the tables were built with other settings.
    """
    spine = context.relation("int_cutoffs_spined")
    query = f"select cutoff_date, settings_hash from {spine} where is_score_cutoff"
    rows = cursor.execute(query).fetchall()
    if len(rows) != 1:
        raise WarehouseError(
            f"int_cutoffs_spined has {len(rows)} score cutoffs; allowed: exactly 1; {BUILD_HINT}"
        )
    cutoff_date, built_hash = rows[0]
    if built_hash != context.settings_hash:
        raise WarehouseError(
            "the tables were built with other settings than the vars in use; "
            f"{BUILD_HINT}, or pass the --vars that they were built with"
        )
    date: datetime.date = cutoff_date
    return date


def _read_oldest_cutoff(cursor: Any, context: ChurnContext) -> datetime.date:
    """Return the oldest training cutoff; the first date there is where none is planned yet."""
    spine = context.relation("int_cutoffs_spined")
    query = f"select min(cutoff_date) from {spine} where is_training_cutoff"
    oldest: datetime.date | None = cursor.execute(query).fetchall()[0][0]
    return oldest or datetime.date.min


def _counted(reader: pa.RecordBatchReader, step: Step) -> Iterator[pa.RecordBatch]:
    """Yield the reader's batches and show how many rows passed."""
    for batch in reader:
        yield batch
        step.advance(batch.num_rows)


def write_snapshot(
    batches: Iterable[pa.RecordBatch],
    *,
    features: Sequence[FeatureSpec],
    settings: Mapping[str, Any],
    score_cutoff_date: datetime.date,
    provenance: Mapping[str, Any],
    snapshots_dir: Path,
    config: SnapshotConfig | None = None,
    profiles: pa.Table | None = None,
) -> Snapshot:
    """Write a snapshot directory and return it, verified; the same rows give the same id.

    Args:
        batches: Rows ordered by cutoff_date, user_id.
        features: Numeric inputs in model order.
        settings: All resolved dbt vars without prefix, with ``text_version``.
        score_cutoff_date: The cutoff that scoring uses.
        provenance: Where the rows come from (project, target, invocation, versions, vars).
        snapshots_dir: Folder of all snapshots; made when missing.
        config: Shard size.
        profiles: One row per user with a profile, ``PROFILE_SCHEMA``; None or empty for none.

    Raises:
        SnapshotSchemaError: Rows that break the contract, or no rows at all.
    """
    config = config or SnapshotConfig()
    ModelSettings.from_mapping(settings)
    schema = snapshot_schema([feature.name for feature in features])
    snapshots_dir.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(snapshots_dir)
    partial = snapshots_dir / f"{PARTIAL_PREFIX}{uuid.uuid4().hex[:12]}"
    partial.mkdir()
    try:
        shards, cutoffs = _write_shards(batches, schema, partial, config.rows_per_shard)
        if not cutoffs:
            raise SnapshotSchemaError(
                "churn_examples holds no row up to the score cutoff; check that "
                "churn__eligibility_days and churn__training_cutoffs fit the data, then run "
                "`dbt build` again"
            )
        document: dict[str, Any] = {
            "snapshot_version": SNAPSHOT_VERSION,
            "created_at": datetime.datetime.now(datetime.timezone.utc).isoformat(
                timespec="seconds"
            ),
            "num_rows": sum(shard["rows"] for shard in shards),
            "score_cutoff_date": score_cutoff_date.isoformat(),
            "shards": shards,
            "schema": [
                {"name": field.name, "type": str(field.type), "nullable": field.nullable}
                for field in schema
            ],
            "features": [dataclasses.asdict(feature) for feature in features],
            "settings": dict(settings),
            "cutoffs": cutoffs,
            "provenance": dict(provenance),
        }
        if profiles is not None and profiles.num_rows:
            document["profiles"] = _write_table(profiles, partial / PROFILES_FILE)
        document["snapshot_id"] = snapshot_identity(document)
        text = json.dumps(document, indent=2, default=str) + "\n"
        (partial / SNAPSHOT_FILE).write_text(text, encoding="utf-8")
        final = snapshots_dir / str(document["snapshot_id"])
        return _publish(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_abandoned(snapshots_dir: Path) -> None:
    """Delete what killed exports left behind a day ago or longer."""
    oldest = time.time() - ABANDONED_SECONDS
    for path in snapshots_dir.glob(f"{PARTIAL_PREFIX}*"):
        if path.stat().st_mtime < oldest:
            shutil.rmtree(path, ignore_errors=True)


def _publish(partial: Path, final: Path) -> Snapshot:
    """Rename the whole directory into place, or keep an equal one that is already there."""
    if final.exists():
        try:
            existing = Snapshot.open(final)
        except (SnapshotIntegrityError, SnapshotNotFoundError, SnapshotSchemaError):
            shutil.rmtree(final)
        else:
            os.utime(final / SNAPSHOT_FILE)
            return existing
    partial.rename(final)
    return Snapshot.open(final)


def _write_shards(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: Path, rows_per_shard: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Write Arrow files of at most ``rows_per_shard`` rows; return shard and cutoff facts."""
    shards: list[dict[str, Any]] = []
    counts: dict[str, dict[str, int]] = {}
    for index, table in enumerate(_regroup(batches, schema, rows_per_shard)):
        _count_cutoffs(table, counts)
        shards.append(_write_table(table, folder / f"part-{index:05d}.arrow"))
    cutoffs = [
        {
            "cutoff_date": date,
            **found,
            "base_rate": found["churned_rows"] / found["mature_rows"]
            if found["mature_rows"]
            else None,
        }
        for date, found in sorted(counts.items())
    ]
    return shards, cutoffs


def _write_table(table: pa.Table, file: Path) -> dict[str, Any]:
    """Write one Arrow file and return its facts."""
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return {
        "file": file.name,
        "sha256": sha256_of_file(file),
        "rows": table.num_rows,
        "bytes": file.stat().st_size,
    }


def _regroup(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows_per_shard: int
) -> Iterator[pa.Table]:
    """Yield tables of exactly ``rows_per_shard`` rows, the last one shorter."""
    pending: list[pa.RecordBatch] = []
    num_pending = 0
    for batch in batches:
        rest = conform_batch(batch, schema)
        _require_usable_values(rest)
        while num_pending + rest.num_rows >= rows_per_shard:
            taken = rows_per_shard - num_pending
            yield pa.Table.from_batches([*pending, rest.slice(0, taken)], schema=schema)
            rest = rest.slice(taken)
            pending, num_pending = [], 0
        if rest.num_rows:
            pending.append(rest)
            num_pending += rest.num_rows
    if pending:
        yield pa.Table.from_batches(pending, schema=schema)


def _count_cutoffs(table: pa.Table, counts: dict[str, dict[str, int]]) -> None:
    """Add a table's rows, mature rows and churned rows to the counts of their cutoffs."""
    labels = table.select(["cutoff_date", "is_label_mature", "is_churned"])
    grouped = labels.group_by("cutoff_date").aggregate(
        [("is_label_mature", "count"), ("is_label_mature", "sum"), ("is_churned", "sum")]
    )
    for row in grouped.to_pylist():
        found = counts.setdefault(
            row["cutoff_date"].isoformat(), {"rows": 0, "mature_rows": 0, "churned_rows": 0}
        )
        found["rows"] += int(row["is_label_mature_count"])
        found["mature_rows"] += int(row["is_label_mature_sum"] or 0)
        found["churned_rows"] += int(row["is_churned_sum"] or 0)


def _require_usable_values(batch: pa.RecordBatch) -> None:
    """Refuse infinite features and mature labels that are null."""
    infinite = [
        name
        for name in feature_names_of(batch.schema)
        if np.isinf(batch.column(name).to_numpy(zero_copy_only=False)).any()
    ]
    if infinite:
        raise SnapshotSchemaError(
            f"feature columns with infinite values: {infinite}; allowed: finite numbers or null. "
            "Check the amounts and quantities behind them, then run `dbt build` again"
        )
    unknown = pc.and_(batch.column("is_label_mature"), pc.is_null(batch.column("is_churned")))
    if pc.any(unknown).as_py():
        raise SnapshotSchemaError(
            "is_churned is null in rows whose label is mature; allowed: true or false. "
            "Run `dbt build` again; if it stays, report it as a bug of churn_examples"
        )
