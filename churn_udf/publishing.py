"""Versioned folder of published tables: whole files under an atomically replaced pointer.

::

    <publish_dir>/current.json                    which version is current, and what it holds
    <publish_dir>/current -> versions/<version>   the same as a link, for tools that take paths
    <publish_dir>/versions/<version>/<table>.parquet

A version is written to one side, flushed to disk and renamed before the pointer names it, and is
never changed afterwards. Whatever kills the writer, the pointer names a whole version. Readers take
no lock; writers take turns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from churn_udf.bundle_files import sync_directory, sync_tree
from churn_udf.contracts.bundle import sha256_of_file
from churn_udf.errors import PublishError

POINTER_FILE = "current.json"
CURRENT_LINK = "current"
VERSIONS_DIR = "versions"
LOCK_FILE = ".lock"
FORMAT = 1
KEEP_VERSIONS = 3
"""Versions kept by default, the current one counted."""
GRACE = timedelta(minutes=15)
"""A version stays at least so long after another became current: readers may have it open."""

_WRITING = ".writing"
_VERSION = re.compile(r"(\d{8}T\d{12})Z-[0-9a-f]{8}")
_TIME_FORMAT = "%Y%m%dT%H%M%S%f"

WriteTables = Callable[[Path], Mapping[str, int]]
"""Writes ``<table>.parquet`` files into a folder and returns the rows of each table."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """One table of a version."""

    path: Path
    """The Parquet file, absolute; its content never changes."""
    rows: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedVersion:
    """What the pointer says of the current version."""

    version: str
    """Name of its folder; sorts by time."""
    fingerprint: str
    """Says what the tables hold, whatever order their rows are in."""
    bundle_id: str | None
    """The model of the newest scores; none where nobody is scored."""
    cutoff_date: str | None
    """Their cutoff, ISO 8601."""
    written_at: str
    """UTC, ISO 8601."""
    superseded: Mapping[str, str]
    """Version that was there when this one came: since when it is not current, ISO 8601."""
    tables: Mapping[str, PublishedTable]


def read_published(publish_dir: Path) -> PublishedVersion | None:
    """Return the current version of a publish folder, or none before the first.

    Its files are whole and stay for ``GRACE`` after another version became current.

    Args:
        publish_dir: The folder that holds ``current.json``.

    Raises:
        PublishError: The pointer is damaged or of another format.
    """
    path = publish_dir / POINTER_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _damaged(path, f"its format is not {FORMAT}, the one this release reads")
    try:
        return _version_of(publish_dir.absolute(), document)
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"a field is missing or of another type: {error!r}") from error


def publish(
    publish_dir: Path,
    *,
    fingerprint: str,
    write_tables: WriteTables,
    bundle_id: str | None,
    cutoff_date: str | None,
    keep: int = KEEP_VERSIONS,
    now: datetime | None = None,
) -> tuple[PublishedVersion, bool]:
    """Make the tables the current version, unless the current version holds the same already.

    Args:
        publish_dir: The folder; made if need be.
        fingerprint: Hex text of 8 characters or more that says what the tables hold.
        write_tables: Called only when a new version is due.
        bundle_id: The model of the newest scores.
        cutoff_date: Their cutoff, ISO 8601.
        keep: Versions to keep, >= 1; older ones go once their grace is over.
        now: The time in UTC; default the clock's.

    Returns:
        The current version, and whether it is new.

    Raises:
        PublishError: The files could not be written; the version before stays current.
    """
    now = now or datetime.now(timezone.utc)
    try:
        (publish_dir / VERSIONS_DIR).mkdir(parents=True, exist_ok=True)
        with _lock(publish_dir):
            _remove_leftovers(publish_dir)
            current = _whole_current(publish_dir)
            is_new = False
            if current is None or current.fingerprint != fingerprint:
                superseded = _superseded(publish_dir / VERSIONS_DIR, current, now)
                document = _write_version(publish_dir, fingerprint, write_tables, now)
                document |= {
                    "bundle_id": bundle_id,
                    "cutoff_date": cutoff_date,
                    "superseded": superseded,
                }
                _replace_pointer(publish_dir, document)
                current, is_new = _version_of(publish_dir.absolute(), document), True
            _replace_link(publish_dir, current.version)
            _delete_old(publish_dir / VERSIONS_DIR, current, keep, now)
    except OSError as error:
        raise PublishError(
            f"publishing to {publish_dir} failed: {error}; readers keep the version they have. "
            "Make room or give write permission and run `dbt build -s int_scores_published`, or "
            "turn publishing off with publish_dir: false in the plugin's config"
        ) from error
    return current, is_new


def _write_version(
    publish_dir: Path, fingerprint: str, write_tables: WriteTables, now: datetime
) -> dict[str, Any]:
    """Write a version's folder whole, and return its part of the pointer."""
    versions = publish_dir / VERSIONS_DIR
    version = f"{now.astimezone(timezone.utc):{_TIME_FORMAT}}Z-{fingerprint[:8]}"
    scratch = versions / _WRITING
    try:
        scratch.mkdir()
        rows = write_tables(scratch)
        tables = {
            name: {
                "path": f"{VERSIONS_DIR}/{version}/{name}.parquet",
                "rows": count,
                "bytes": (scratch / f"{name}.parquet").stat().st_size,
                "sha256": sha256_of_file(scratch / f"{name}.parquet"),
            }
            for name, count in rows.items()
        }
        sync_tree(scratch)
        scratch.rename(versions / version)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    sync_directory(versions)
    return {
        "format": FORMAT,
        "version": version,
        "written_at": now.astimezone(timezone.utc).isoformat(timespec="seconds"),
        "fingerprint": fingerprint,
        "tables": tables,
    }


def _replace_pointer(publish_dir: Path, document: Mapping[str, Any]) -> None:
    """Point to a version; readers see the old pointer or the new. The umask sets who may read."""
    scratch = publish_dir / f".{POINTER_FILE}"
    with scratch.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(json.dumps(document, indent=2, sort_keys=True) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(publish_dir / POINTER_FILE)
    sync_directory(publish_dir)


def _replace_link(publish_dir: Path, version: str) -> None:
    """Point the link to a version, where the file system has links.

    Raises:
        OSError: It cannot be replaced although there is something in its place, which would go
            on showing readers something else.
    """
    link, scratch = publish_dir / CURRENT_LINK, publish_dir / f".{CURRENT_LINK}"
    target = Path(VERSIONS_DIR) / version
    if link.is_symlink() and link.readlink() == target:
        return
    try:
        scratch.symlink_to(target, target_is_directory=True)
        scratch.replace(link)
    except OSError:
        if os.path.lexists(link):
            raise
        return
    sync_directory(publish_dir)


def _superseded(versions: Path, current: PublishedVersion | None, now: datetime) -> dict[str, str]:
    """Return since when each version there is not current: as the pointer says, or as of now."""
    known = current.superseded if current else {}
    return {name: known.get(name, now.isoformat()) for name in _names(versions)}


def _delete_old(versions: Path, current: PublishedVersion, keep: int, now: datetime) -> None:
    """Delete versions beyond the newest ``keep`` once they are out of use for the grace."""
    names = _names(versions)
    for name in set(names) - {current.version, *names[-keep:]}:
        since = current.superseded.get(name)
        if since is not None and now - datetime.fromisoformat(since) >= GRACE:
            shutil.rmtree(versions / name)


def _names(versions: Path) -> list[str]:
    """Return the versions' names, the newest last; folders of other names are not ours."""
    return sorted(path.name for path in versions.iterdir() if _VERSION.fullmatch(path.name))


def _remove_leftovers(publish_dir: Path) -> None:
    """Remove what a killed writer left; the lock says that no other is at work."""
    scratch = publish_dir / VERSIONS_DIR / _WRITING
    if scratch.exists():
        shutil.rmtree(scratch)
    for name in (POINTER_FILE, CURRENT_LINK):
        (publish_dir / f".{name}").unlink(missing_ok=True)


def _whole_current(publish_dir: Path) -> PublishedVersion | None:
    """Return the current version if its pointer and files are whole; if not, one is due."""
    try:
        current = read_published(publish_dir)
    except PublishError:
        return None
    if current is None:
        return None
    files = current.tables.values()
    is_whole = all(file.path.is_file() and file.path.stat().st_size == file.bytes for file in files)
    return current if is_whole else None


def _version_of(publish_dir: Path, document: Mapping[str, Any]) -> PublishedVersion:
    """Return a pointer's document as an object; paths become absolute."""
    tables = {
        name: PublishedTable(**{**table, "path": publish_dir / table["path"]})
        for name, table in document["tables"].items()
    }
    fields = {name: value for name, value in document.items() if name not in ("format", "tables")}
    return PublishedVersion(**fields, tables=tables)


def _damaged(path: Path, why: str) -> PublishError:
    """Return the error of a pointer that cannot be read."""
    return PublishError(
        f"{path} is no pointer to published tables: {why}; run "
        "`dbt build -s int_scores_published`, which writes it anew"
    )


@contextlib.contextmanager
def _lock(publish_dir: Path) -> Iterator[None]:
    """Hold the writers' lock; the operating system frees it if the process dies."""
    import fcntl

    with (publish_dir / LOCK_FILE).open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
