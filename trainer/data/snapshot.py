"""Snapshots on disk: find, verify and read.

The directory is described in ``churn_udf.contracts.snapshot``. A snapshot is named by the hash
of its content and never changed; ``trainer.data.export`` writes it.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from churn_udf.contracts.bundle import FeatureSpec, sha256_of_file
from churn_udf.contracts.settings import TEXT_VERSION, ModelSettings
from churn_udf.contracts.snapshot import (
    MAX_SHARD_ROWS,
    PROFILE_SCHEMA,
    SNAPSHOT_FILE,
    SNAPSHOT_VERSION,
    snapshot_schema,
)
from churn_udf.errors import SnapshotSchemaError, TextVersionError
from trainer.errors import ConfigError, SnapshotIntegrityError, SnapshotNotFoundError

FloatArray: TypeAlias = npt.NDArray[np.float64]
IndexArray: TypeAlias = npt.NDArray[np.int64]
DateArray: TypeAlias = npt.NDArray[np.datetime64]
SNAPSHOT_ID_LENGTH = 16
REBUILD_HINT = "export it again with `churn-train snapshot`"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotConfig:
    """How a snapshot is written."""

    rows_per_shard: int = MAX_SHARD_ROWS
    """Rows in one Arrow file; smaller files verify in smaller steps."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if not 1 <= self.rows_per_shard <= MAX_SHARD_ROWS:
            raise ConfigError(
                f"snapshot.rows_per_shard is {self.rows_per_shard}; allowed: 1 to {MAX_SHARD_ROWS}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A verified snapshot; its columns are memory-mapped, so opening one costs no memory."""

    path: Path
    document: Mapping[str, Any]
    """Content of ``snapshot.json``."""
    table: pa.Table
    """Every row, ordered by cutoff_date, user_id; columns as in ``snapshot_schema``."""
    profiles: pa.Table = dataclasses.field(default_factory=PROFILE_SCHEMA.empty_table)
    """One row per user with a profile, ``PROFILE_SCHEMA``; empty where the team has none."""

    @classmethod
    def open(cls, path: Path) -> Snapshot:
        """Open a snapshot directory and verify every file of it.

        Args:
            path: The directory ``<snapshots_dir>/<snapshot_id>``.

        Raises:
            SnapshotNotFoundError: No such directory, or no ``snapshot.json`` in it.
            SnapshotIntegrityError: A file is missing or is not the one that was written.
            SnapshotSchemaError: Columns or types differ from the contract.
            TextVersionError: The text is of another version than this release reads.
        """
        document = _read_document(path)
        try:
            features = [FeatureSpec(**feature) for feature in document["features"]]
            shards = list(document["shards"])
            stated_id = document["snapshot_id"]
            expected_id = snapshot_identity(document)
            text_version = document["settings"]["text_version"]
        except (KeyError, TypeError) as error:
            raise SnapshotIntegrityError(
                f"{path / SNAPSHOT_FILE} is not a snapshot description "
                f"({type(error).__name__}: {error}); {REBUILD_HINT}"
            ) from error
        if stated_id != expected_id:
            raise SnapshotIntegrityError(
                f"{path / SNAPSHOT_FILE} says snapshot_id {stated_id!r} but its content hashes "
                f"to {expected_id!r}: it was changed after export; {REBUILD_HINT}"
            )
        if text_version != TEXT_VERSION:
            raise TextVersionError(
                f"snapshot {stated_id} has text version {text_version}; this release reads "
                f"{TEXT_VERSION}; run `dbt build`, then {REBUILD_HINT}"
            )
        schema = snapshot_schema([feature.name for feature in features])
        tables = [_open_shard(path, shard, schema) for shard in shards]
        table = pa.concat_tables(tables) if tables else schema.empty_table()
        stored = document.get("profiles")
        if stored is None:
            return cls(path=path, document=document, table=table)
        profiles = _open_shard(path, stored, PROFILE_SCHEMA)
        return cls(path=path, document=document, table=table, profiles=profiles)

    def until(self, score_cutoff: datetime.date) -> Snapshot:
        """Return the snapshot as it would have been scored at an earlier cutoff.

        Rows of later cutoffs are gone. Labels of the kept rows stay, also those that were not
        known then: a test on the newest cutoff needs them, and splits keep them from training.

        Args:
            score_cutoff: One of the snapshot's cutoffs.

        Raises:
            SnapshotNotFoundError: No row has this cutoff.
        """
        kept = np.flatnonzero(self.cutoff_dates <= np.datetime64(score_cutoff, "D"))
        if not (self.cutoff_dates[kept] == np.datetime64(score_cutoff, "D")).any():
            raise SnapshotNotFoundError(
                f"snapshot {self.snapshot_id} has no cutoff {score_cutoff}; it has "
                f"{', '.join(str(date) for date in np.unique(self.cutoff_dates))}"
            )
        content = f"{self.snapshot_id}:{score_cutoff.isoformat()}"
        document = {
            **self.document,
            "score_cutoff_date": score_cutoff.isoformat(),
            "snapshot_id": hashlib.sha256(content.encode()).hexdigest()[:SNAPSHOT_ID_LENGTH],
        }
        table = self.table.take(pa.array(kept))
        return dataclasses.replace(self, document=document, table=table)

    @property
    def snapshot_id(self) -> str:
        """Hash of the content, 16 hex digits."""
        return str(self.document["snapshot_id"])

    @property
    def num_rows(self) -> int:
        """Rows of all cutoffs, labelled or not."""
        return int(self.table.num_rows)

    @functools.cached_property
    def features(self) -> tuple[FeatureSpec, ...]:
        """Numeric inputs in model order."""
        return tuple(FeatureSpec(**feature) for feature in self.document["features"])

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the numeric inputs in model order."""
        return tuple(feature.name for feature in self.features)

    @property
    def settings(self) -> Mapping[str, Any]:
        """All resolved dbt vars, without their prefix."""
        settings: Mapping[str, Any] = self.document["settings"]
        return settings

    @functools.cached_property
    def model_settings(self) -> ModelSettings:
        """The settings that a bundle is bound to."""
        return ModelSettings.from_mapping(self.settings)

    @functools.cached_property
    def cutoff_dates(self) -> DateArray:
        """(N,) datetime64[D], the cutoff of each row."""
        return np.asarray(self.table.column("cutoff_date").to_numpy(), dtype="datetime64[D]")

    @functools.cached_property
    def labels(self) -> FloatArray:
        """(N,) float64: 1 churned, 0 stayed, NaN where the label is not mature."""
        churned = self.table.column("is_churned")
        mature = self.table.column("is_label_mature")
        values = pc.if_else(mature, pc.cast(churned, pa.float64()), pa.scalar(None, pa.float64()))
        return np.asarray(values.to_numpy(), dtype=np.float64)

    @functools.cached_property
    def feature_matrix(self) -> FloatArray:
        """(N, F) float64 in row order, NaN where unknown."""
        matrix = np.empty((self.num_rows, len(self.feature_names)), dtype=np.float64)
        for index, name in enumerate(self.feature_names):
            matrix[:, index] = self.table.column(name).to_numpy()
        return matrix

    def texts(self, rows: IndexArray) -> tuple[pa.Array, pa.Array]:
        """Return behaviour texts and review texts of these rows, as Arrow strings.

        Args:
            rows: (K,) row indices.
        """
        picked = self.table.select(["behavior_text", "review_text_recent"]).take(pa.array(rows))
        texts = picked.combine_chunks()
        behavior, review = (_one_array(texts.column(index)) for index in (0, 1))
        return behavior, review

    @functools.cached_property
    def profile_values(self) -> dict[str, dict[str, str]]:
        """{profile column: {user: value as text}}, only what is known."""
        values: dict[str, dict[str, str]] = {}
        users, documents = (self.profiles.column(name).to_pylist() for name in PROFILE_SCHEMA.names)
        for user, document in zip(users, documents, strict=True):
            for column, value in json.loads(document).items():
                known = values.setdefault(column, {})
                if value is not None:
                    known[user] = value
        return values

    def user_ids(self, rows: IndexArray) -> list[str]:
        """Return the user of each of these rows."""
        ids: list[str] = self.table.column("user_id").take(pa.array(rows)).to_pylist()
        return ids


def find_snapshot(snapshots_dir: Path, reference: str | None) -> Path:
    """Return the directory of a snapshot.

    Args:
        snapshots_dir: Folder of all snapshots.
        reference: An id, the unique beginning of one, a path, or None for the newest.

    Raises:
        SnapshotNotFoundError: Nothing, or more than one, fits.
    """
    if reference and (Path(reference) / SNAPSHOT_FILE).is_file():
        return Path(reference)
    known = list_snapshots(snapshots_dir)
    if reference is None:
        if known:
            return known[-1]
        raise SnapshotNotFoundError(
            f"no snapshot in {snapshots_dir}; run `churn-train snapshot` first"
        )
    matches = [path for path in known if path.name.startswith(reference)]
    if len(matches) == 1:
        return matches[0]
    found = ", ".join(path.name for path in (matches or known)) or "none"
    problem = "fits more than one snapshot" if matches else "is not a snapshot"
    raise SnapshotNotFoundError(
        f"{reference!r} {problem} in {snapshots_dir}; found: {found}; "
        "run `churn-train snapshot` to export one"
    )


def list_snapshots(snapshots_dir: Path) -> list[Path]:
    """Return the snapshot directories, the one exported last at the end.

    Exporting the same rows again touches ``snapshot.json``, so its time tells the order.
    """
    files = [path for path in snapshots_dir.glob(f"*/{SNAPSHOT_FILE}") if path.is_file()]
    files.sort(key=lambda path: (path.stat().st_mtime_ns, path.parent.name))
    return [path.parent for path in files]


def snapshot_identity(document: Mapping[str, Any]) -> str:
    """Return the id: a hash over rows, schema, features and model settings, free of times."""
    content = {
        "snapshot_version": document["snapshot_version"],
        "score_cutoff_date": document["score_cutoff_date"],
        "shards": [[shard["sha256"], shard["rows"]] for shard in document["shards"]],
        "schema": document["schema"],
        "features": [[feature["name"], feature["group"]] for feature in document["features"]],
        "settings": ModelSettings.from_mapping(document["settings"]).to_dict(),
        "cutoffs": document["cutoffs"],
    }
    if "profiles" in document:
        content["profiles"] = [document["profiles"]["sha256"], document["profiles"]["rows"]]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:SNAPSHOT_ID_LENGTH]


def _read_document(path: Path) -> dict[str, Any]:
    """Read ``snapshot.json`` and check its version."""
    file = path / SNAPSHOT_FILE
    if not file.is_file():
        raise SnapshotNotFoundError(
            f"{path} is not a snapshot: it has no {SNAPSHOT_FILE}; "
            "run `churn-train snapshot` to export one"
        )
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = document.get("snapshot_version")
    except (ValueError, AttributeError) as error:
        raise SnapshotIntegrityError(f"{file} is not JSON ({error}); {REBUILD_HINT}") from error
    if version != SNAPSHOT_VERSION:
        raise SnapshotSchemaError(
            f"{file} has snapshot format {version!r}; this release reads {SNAPSHOT_VERSION}; "
            f"{REBUILD_HINT}"
        )
    return document


def _open_shard(path: Path, shard: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """Verify one Arrow file and map it."""
    file = path / str(shard["file"])
    if not file.is_file():
        raise SnapshotIntegrityError(f"{file} is missing; {REBUILD_HINT}")
    digest = sha256_of_file(file)
    if digest != shard["sha256"]:
        raise SnapshotIntegrityError(
            f"{file} is damaged: its sha256 is {digest[:16]}..., {SNAPSHOT_FILE} says "
            f"{str(shard['sha256'])[:16]}...; {REBUILD_HINT}"
        )
    try:
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    except pa.ArrowInvalid as error:
        raise SnapshotIntegrityError(
            f"{file} is not an Arrow file ({error}); {REBUILD_HINT}"
        ) from error
    if not table.schema.equals(schema):
        raise SnapshotSchemaError(
            f"{file} has columns {table.schema.names}, {SNAPSHOT_FILE} promises {schema.names} "
            f"with the contract's types; {REBUILD_HINT}"
        )
    if table.num_rows != shard["rows"]:
        raise SnapshotIntegrityError(
            f"{file} has {table.num_rows} rows, {SNAPSHOT_FILE} says {shard['rows']}; "
            f"{REBUILD_HINT}"
        )
    return table


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, also when it has no chunk or several."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
