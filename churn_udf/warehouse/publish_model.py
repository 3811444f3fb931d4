"""Body of the dbt Python model ``int_scores_published``: the score marts as Parquet files.

While one process writes a DuckDB file no other can open it; these files stay readable. The
model's pre-hook (macro ``set_publish_context``) leaves the marts' names in a session variable; the
plugin leaves the folder in another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from churn_udf.bundle_store import read_champion
from churn_udf.errors import PublishError, SettingsError
from churn_udf.models_location import models_dir_of
from churn_udf.publishing import (
    KEEP_VERSIONS,
    PublishedVersion,
    publish,
    read_published,
)
from churn_udf.warehouse import (
    MODELS_DIR_VARIABLE,
    PUBLISH_CONTEXT_VARIABLE,
    PUBLISH_DIR_VARIABLE,
    PUBLISH_KEEP_VARIABLE,
)
from churn_udf.warehouse.dbt_model import dbt_logger

PUBLISHED_SCHEMA = pa.schema(
    [
        ("table_name", pa.string()),
        ("version", pa.string()),
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("row_count", pa.int64()),
        ("byte_count", pa.int64()),
        ("written_at", pa.timestamp("us")),
    ]
)
NEWEST_SCORES = "churn_scores_current"
"""The mart that tells which model and cutoff a version is of."""


def model(dbt: Any, session: Any) -> pa.Table:
    """Publish the marts that the model refers to, and return what is published.

    Nothing is written when publishing is off, on ``--empty`` builds and before the first
    champion; nor when the current version already holds the same rows.

    Args:
        dbt: The object dbt hands to Python models.
        session: dbt's DuckDB cursor.

    Returns:
        ``PUBLISHED_SCHEMA`` rows, one per table of the current version.

    Raises:
        PublishError: The files could not be written; the version before stays current.
        SettingsError: The model ran without its pre-hook or without the plugin.
    """
    context = _variable(session, PUBLISH_CONTEXT_VARIABLE)
    models_dir = _variable(session, MODELS_DIR_VARIABLE)
    if context is None or models_dir is None:
        raise SettingsError(
            "int_scores_published ran without its pre-hook churn_scoring.set_publish_context() or "
            "without the plugin churn_udf.warehouse.duckdb_plugin in profiles.yml; keep both"
        )
    document = json.loads(context)
    log = dbt_logger()
    folder = _variable(session, PUBLISH_DIR_VARIABLE)
    if folder is None:
        log("publishing is off: no publish_dir")
        return _rows_of(None)
    publish_dir = Path(folder)
    if document["is_empty"] or read_champion(models_dir_of(models_dir)) is None:
        log(f"nothing to publish in {publish_dir} yet: no champion, or an --empty build")
        return _rows_of(read_published(publish_dir))
    current, is_new = publish_relations(
        session,
        document["relations"],
        publish_dir,
        keep=int(_variable(session, PUBLISH_KEEP_VARIABLE) or KEEP_VERSIONS),
    )
    counts = ", ".join(f"{name} {table.rows:,} rows" for name, table in current.tables.items())
    state = "published" if is_new else "unchanged"
    log(f"{state}: version {current.version} in {publish_dir} ({counts})")
    return _rows_of(current)


def publish_relations(
    session: Any, relations: Mapping[str, str], publish_dir: Path, *, keep: int = KEEP_VERSIONS
) -> tuple[PublishedVersion, bool]:
    """Write relations of a DuckDB connection as one version, all as of one moment.

    Rows are written in the order of their columns; memory is bounded by DuckDB's
    ``memory_limit``, beyond which it sorts on disk.

    Args:
        session: A DuckDB connection; it is not used itself, a cursor of it is.
        relations: Table name to SQL name; ``churn_scores_current`` among them.
        publish_dir: The folder.
        keep: Versions to keep, >= 1.

    Returns:
        The current version, and whether it is new.

    Raises:
        PublishError: The files could not be written; the version before stays current.
    """
    import duckdb

    with session.cursor() as cursor:
        cursor.execute("begin transaction")
        try:
            bundle_id, cutoff_date = cursor.execute(
                "select max(bundle_id), cast(max(cutoff_date) as varchar) "
                f"from {relations[NEWEST_SCORES]}"
            ).fetchone()

            def write_tables(directory: Path) -> dict[str, int]:
                return {
                    name: _write_parquet(cursor, relation, directory / f"{name}.parquet")
                    for name, relation in relations.items()
                }

            return publish(
                publish_dir,
                fingerprint=_fingerprint(cursor, relations),
                write_tables=write_tables,
                bundle_id=bundle_id,
                cutoff_date=cutoff_date,
                keep=keep,
            )
        except duckdb.Error as error:
            raise PublishError(
                f"DuckDB could not write {sorted(relations)} to {publish_dir}: {error}; readers "
                "keep the version they have. Cure that and run "
                "`dbt build -s int_scores_published`, or turn publishing off with "
                "publish_dir: false in the plugin's config"
            ) from error
        finally:
            cursor.execute("rollback")


def _write_parquet(cursor: Any, relation: str, path: Path) -> int:
    """Stream a relation into a Parquet file; return its rows."""
    target = str(path).replace("'", "''")
    cursor.execute(
        f"copy (select * from {relation} order by all) to '{target}' "
        "(format parquet, compression zstd)"
    )
    return int(cursor.fetchone()[0])


def _fingerprint(cursor: Any, relations: Mapping[str, str]) -> str:
    """Hash names, columns, types and rows of relations, whatever order the rows are in."""
    contents = {}
    for name, relation in sorted(relations.items()):
        columns = cursor.execute(f"describe select * from {relation}").fetchall()
        sums = cursor.execute(
            "select count(*), cast(sum(cast(hash(*columns(*)) as hugeint)) as varchar) "
            f"from {relation}"
        ).fetchone()
        contents[name] = [[column[:2] for column in columns], *sums]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def _rows_of(current: PublishedVersion | None) -> pa.Table:
    """Return one row per table of a version."""
    rows = []
    if current is not None:
        written_at = datetime.fromisoformat(current.written_at).replace(tzinfo=None)
        rows = [
            {
                "table_name": name,
                "version": current.version,
                "path": str(table.path),
                "sha256": table.sha256,
                "row_count": table.rows,
                "byte_count": table.bytes,
                "written_at": written_at,
            }
            for name, table in sorted(current.tables.items())
        ]
    return pa.Table.from_pylist(rows, PUBLISHED_SCHEMA)


def _variable(session: Any, name: str) -> Any:
    """Return a session variable, none if it is not set."""
    return session.execute("select getvariable(?)", [name]).fetchone()[0]
