"""Snapshot contract: the immutable Arrow copy of ``churn_examples`` that training reads.

A snapshot is a directory ``<snapshot_id>/`` with Arrow IPC files ``part-00000.arrow``,
``part-00001.arrow``, ... and ``snapshot.json``. Rows are ordered by cutoff_date, user_id.
Where the team has user profiles, ``profiles.arrow`` holds them once per user, by which evaluation
slices; no model reads that file, as a profile tells of today and not of the cutoff.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from churn_udf.errors import SnapshotSchemaError

SNAPSHOT_VERSION = 1
SNAPSHOT_FILE = "snapshot.json"
PROFILES_FILE = "profiles.arrow"
MAX_SHARD_ROWS = 65_536

KEY_FIELDS: tuple[pa.Field, ...] = (
    pa.field("user_id", pa.string(), nullable=False),
    pa.field("cutoff_date", pa.date32(), nullable=False),
    pa.field("behavior_text", pa.string(), nullable=False),
    pa.field("review_text_recent", pa.string(), nullable=False),
)
LABEL_FIELDS: tuple[pa.Field, ...] = (
    pa.field("is_label_mature", pa.bool_(), nullable=False),
    pa.field("is_churned", pa.bool_(), nullable=True),
    pa.field("input_hash", pa.string(), nullable=False),
)
PROFILE_SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("profile_json", pa.string(), nullable=False),
    ]
)
RESERVED_NAMES = frozenset(
    [field.name for field in (*KEY_FIELDS, *LABEL_FIELDS)] + ["is_score_cutoff"]
)


def snapshot_schema(feature_names: Sequence[str]) -> pa.Schema:
    """Return the Arrow schema of a snapshot with these features, in this order.

    Raises:
        SnapshotSchemaError: No feature, a feature listed twice, or one named like a key column.
    """
    if not feature_names:
        raise SnapshotSchemaError(
            "no feature columns; the churn_examples model needs columns with meta feature_group"
        )
    duplicates = sorted({name for name in feature_names if feature_names.count(name) > 1})
    reserved = sorted(set(feature_names) & RESERVED_NAMES)
    if duplicates or reserved:
        raise SnapshotSchemaError(
            f"feature names listed twice: {duplicates}; named like key columns: {reserved}"
        )
    features = [pa.field(name, pa.float64(), nullable=True) for name in feature_names]
    return pa.schema([*KEY_FIELDS, *features, *LABEL_FIELDS])


def conform_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the batch with exactly the schema's columns, order and types.

    Raises:
        SnapshotSchemaError: A column is missing, cannot be cast, or holds a forbidden null.
    """
    missing = [name for name in schema.names if name not in batch.schema.names]
    if missing:
        raise SnapshotSchemaError(
            f"columns missing: {missing}; found: {batch.schema.names}; run `dbt build` first"
        )
    columns = []
    for field in schema:
        column = batch.column(field.name)
        try:
            column = column.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SnapshotSchemaError(
                f"column {field.name!r} is {column.type}; allowed: {field.type}"
            ) from error
        if not field.nullable and column.null_count:
            raise SnapshotSchemaError(
                f"column {field.name!r} has {column.null_count} nulls; allowed: none"
            )
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def feature_names_of(schema: pa.Schema) -> tuple[str, ...]:
    """Return the feature columns of a snapshot's schema, in order."""
    return tuple(name for name in schema.names if name not in RESERVED_NAMES)
