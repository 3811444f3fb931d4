"""Bodies of the dbt Python models ``int_models_registered`` and ``int_model_transitions``."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timezone
from typing import Any

import pyarrow as pa

from churn_udf.errors import SettingsError
from churn_udf.model_records import read_records
from churn_udf.models_location import ModelsDir, models_dir_of
from churn_udf.registry import read_registry
from churn_udf.warehouse import MODELS_DIR_VARIABLE

MODELS_SCHEMA = pa.schema(
    [
        ("bundle_id", pa.string()),
        ("stage", pa.string()),
        ("is_champion", pa.bool_()),
        ("stage_since", pa.timestamp("us")),
        ("stage_reason", pa.string()),
        ("created_at", pa.timestamp("us")),
        ("run_id", pa.string()),
        ("snapshot_id", pa.string()),
        ("model_kind", pa.string()),
        ("encoder", pa.string()),
        ("training_row_count", pa.int64()),
        ("training_base_rate", pa.float64()),
        ("first_training_cutoff_date", pa.date32()),
        ("last_training_cutoff_date", pa.date32()),
        ("trained_until_date", pa.date32()),
        ("test_cutoff_date", pa.date32()),
        ("test_auroc", pa.float64()),
        ("test_average_precision", pa.float64()),
        ("test_brier_score", pa.float64()),
        ("test_calibration_error", pa.float64()),
    ]
)
TRANSITIONS_SCHEMA = pa.schema(
    [
        ("log_sequence", pa.int64()),
        ("moved_at", pa.timestamp("us")),
        ("moved_by", pa.string()),
        ("bundle_id", pa.string()),
        ("from_stage", pa.string()),
        ("to_stage", pa.string()),
        ("reason", pa.string()),
        ("is_override", pa.bool_()),
        ("checks_json", pa.string()),
    ]
)


def models_registered(dbt: Any, session: Any) -> pa.Table:
    """Return every model of the location that the plugin names, with its stage.

    Args:
        dbt: The object dbt hands to Python models.
        session: dbt's DuckDB cursor.

    Returns:
        ``MODELS_SCHEMA`` rows, one per bundle, by id; none where nothing was packaged.

    Raises:
        BundleIntegrityError: The registry is damaged.
        SettingsError: The profile lacks the plugin.
        StorageError: The location cannot be read.
    """
    rows = [dataclasses.asdict(record) for record in read_records(session_models_dir(session))]
    for row in rows:
        for name in ("stage_since", "created_at"):
            row[name] = _utc(row[name])
    return pa.Table.from_pylist(rows, MODELS_SCHEMA)


def model_transitions(dbt: Any, session: Any) -> pa.Table:
    """Return the registry's log.

    Args:
        dbt: The object dbt hands to Python models.
        session: dbt's DuckDB cursor.

    Returns:
        ``TRANSITIONS_SCHEMA`` rows, oldest first.

    Raises:
        BundleIntegrityError, SettingsError, StorageError: See ``models_registered``.
    """
    rows = [
        {
            **dataclasses.asdict(entry),
            "log_sequence": entry.sequence,
            "moved_at": _utc(entry.moved_at),
            "checks_json": json.dumps([dict(check) for check in entry.checks], sort_keys=True),
        }
        for entry in read_registry(session_models_dir(session)).transitions
    ]
    return pa.Table.from_pylist(rows, TRANSITIONS_SCHEMA)


def session_models_dir(session: Any) -> ModelsDir:
    """Return the models location that the plugin left in the session.

    Raises:
        SettingsError: The profile lacks the plugin.
    """
    ((stated,),) = session.execute("select getvariable(?)", [MODELS_DIR_VARIABLE]).fetchall()
    if stated is None:
        raise SettingsError(
            "the dbt target has no churn plugin; add to it in profiles.yml: plugins: "
            "[{module: churn_udf.warehouse.duckdb_plugin, alias: churn, "
            "config: {models_dir: models}}]"
        )
    return models_dir_of(stated)


def _utc(text: str | None) -> datetime | None:
    """Return a time as the warehouse keeps it: UTC without zone; None if it cannot be read."""
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    if moment is None or moment.tzinfo is None:
        return moment
    return moment.astimezone(timezone.utc).replace(tzinfo=None)
