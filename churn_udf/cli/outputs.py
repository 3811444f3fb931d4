"""Writes Parquet and Arrow so that a file is either whole or as it was before."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from churn_udf.bundle_files import sync_directory
from churn_udf.cli.inputs import ARROW, AUTO, PARQUET
from churn_udf.errors import OutputError

ROW_GROUP_ROWS = 65_536
ABANDONED_SECONDS = 24 * 3600
"""A half-written file this old belongs to no process that is still running."""
SUFFIXES = {".parquet": PARQUET, ".pq": PARQUET, ".arrow": ARROW, ".feather": ARROW, ".ipc": ARROW}


class Sink(Protocol):
    """Where rows go, batch by batch."""

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Add rows."""


def format_of(path: Path, format_name: str) -> str:
    """Return the format that a file is to have.

    Raises:
        OutputError: It is not said, and the file's suffix does not tell.
    """
    if format_name != AUTO:
        return format_name
    if path.suffix not in SUFFIXES:
        raise OutputError(
            f"{path}: the suffix {path.suffix!r} names no format; allowed: {', '.join(SUFFIXES)}, "
            "or give --output-format"
        )
    return SUFFIXES[path.suffix]


def require_writable(path: Path) -> None:
    """Refuse early what could not be written at the end.

    Raises:
        OutputError: The folder does not exist or may not be written, or there is something at
            this place that is not a file.
    """
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is not a plain file; allowed: a file, or - for standard output")
    if not os.access(path.resolve().parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: no folder {path.resolve().parent} that may be written; make it")


@contextlib.contextmanager
def file_sink(path: Path, schema: pa.Schema, format_name: str) -> Iterator[Sink]:
    """Write a file under a temporary name beside its place and rename it when it is whole.

    An error, a signal or a kill leaves the file that was there before. What a kill leaves of
    the temporary file is removed by a run a day later.

    Args:
        path: The file; a link is followed.
        schema: Of the rows.
        format_name: ``parquet`` or ``arrow`` (an IPC file).

    Raises:
        OutputError: The disk is full, the folder is gone, ...
    """
    final = path.resolve()
    prefix = f".{final.name}.partial-"
    _remove_abandoned(final.parent, prefix)
    partial = final.with_name(f"{prefix}{uuid.uuid4().hex[:12]}")
    try:
        with partial.open("xb") as stream:
            with _writer(stream, schema, format_name) as sink:
                yield sink
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(final)
        sync_directory(final.parent)
    except BrokenPipeError:
        raise  # of another sink, standard output, that is open at the same time
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror or error}); it is as it was before. Make "
            "room or choose another place, then run again"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def stream_sink(stream: BinaryIO, schema: pa.Schema) -> Iterator[Sink]:
    """Write an Arrow stream; without an error it gets its end mark, else it is left open.

    Raises:
        BrokenPipeError: The reader is gone.
    """
    writer = pa.ipc.new_stream(pa.PythonFile(stream, mode="w"), schema)
    yield writer
    writer.close()


@contextlib.contextmanager
def _writer(stream: BinaryIO, schema: pa.Schema, format_name: str) -> Iterator[Sink]:
    if format_name == ARROW:
        with pa.ipc.new_file(stream, schema) as writer:
            yield writer
        return
    with pq.ParquetWriter(stream, schema, compression="zstd") as parquet:
        grouped = RowGroups(parquet, schema)
        yield grouped
        grouped.flush()


class RowGroups:
    """Gathers batches to row groups of a size that readers like.

    Args:
        writer: A Parquet writer.
        schema: Of the rows.
    """

    def __init__(self, writer: Any, schema: pa.Schema) -> None:
        self._writer = writer
        self._schema = schema
        self._pending: list[pa.RecordBatch] = []

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Add rows; they are written when there are ``ROW_GROUP_ROWS``."""
        self._pending.append(batch)
        if sum(pending.num_rows for pending in self._pending) >= ROW_GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is pending."""
        if self._pending:
            self._writer.write_table(pa.Table.from_batches(self._pending, self._schema))
            self._pending.clear()


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """Delete what killed runs left of this file a day ago or longer."""
    oldest = time.time() - ABANDONED_SECONDS
    for path in [path for path in folder.iterdir() if path.name.startswith(prefix)]:
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()
