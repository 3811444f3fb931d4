"""Reads Parquet and Arrow, from files, folders and standard input, in batches of bounded size."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from churn_udf.contracts.settings import ModelSettings
from churn_udf.contracts.snapshot import PROFILES_FILE, SNAPSHOT_FILE
from churn_udf.errors import InputError

AUTO, PARQUET, ARROW = "auto", "parquet", "arrow"
FORMATS = (AUTO, PARQUET, ARROW)
CONTRACT_KEY = b"churn_contract"
"""Schema metadata with what the rows were built with, as JSON with the key ``settings``."""
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
PAGE_BYTES = 1 << 20
"""Parquet is read by so much of a column at a time, however large its row groups are."""
_FIRST_BYTES = {b"P": PARQUET, b"A": ARROW}
_SUFFIXES = (".parquet", ".arrow", ".arrows", ".feather", ".ipc")


@dataclasses.dataclass(frozen=True)
class Source:
    """Rows to score, not read yet."""

    name: str
    schema: pa.Schema
    read: Callable[[Sequence[str], int], Iterator[pa.RecordBatch]]
    """Takes column names and the most rows of a batch; may be called once."""
    settings: ModelSettings | None = None
    """What the rows were built with, where the source tells."""


@contextlib.contextmanager
def open_source(where: str, format_name: str, stdin: BinaryIO) -> Iterator[Source]:
    """Open what is to be scored; nothing but its schema is read yet.

    Args:
        where: A file, a folder of files of one schema (read in the order of their names), or
            ``-`` for standard input.
        format_name: One of ``FORMATS``; ``auto`` looks at the first byte.
        stdin: Standard input, buffered.

    Raises:
        InputError: It does not exist, or is neither Parquet nor Arrow.
    """
    with contextlib.ExitStack() as stack:
        if where == "-":
            yield _open_stream(stdin, "standard input", format_name, stack)
            return
        path, *others = _files_of(Path(where))
        first = _open_path(path, format_name, stack)
        settings = _settings_of_snapshot(Path(where)) or first.settings
        yield Source(where, first.schema, _chain(first, others, format_name), settings)


def _files_of(path: Path) -> list[Path]:
    """Return the file, or the files of a folder."""
    if not path.is_dir():
        return [path]
    found = sorted(
        file
        for file in path.iterdir()
        if file.suffix in _SUFFIXES and file.name[0] not in "._" and file.name != PROFILES_FILE
    )
    if not found:
        raise InputError(f"--input {path}: no file named *{', *'.join(_SUFFIXES)} in this folder")
    return found


def _open_path(path: Path, format_name: str, stack: contextlib.ExitStack) -> Source:
    """Open a file until the stack ends."""
    try:
        stream = stack.enter_context(path.open("rb"))
    except OSError as error:
        raise InputError(f"--input {path}: {error.strerror}") from error
    return _open_stream(stream, str(path), format_name, stack)


def _chain(
    first: Source, others: Sequence[Path], format_name: str
) -> Callable[[Sequence[str], int], Iterator[pa.RecordBatch]]:
    """Read files one after the other, opening each in its turn."""

    def read(columns: Sequence[str], max_rows: int) -> Iterator[pa.RecordBatch]:
        yield from first.read(columns, max_rows)
        for path in others:
            with contextlib.ExitStack() as stack:
                part = _open_path(path, format_name, stack)
                _require_same(part, first, columns)
                yield from part.read(columns, max_rows)

    return read


def _require_same(part: Source, first: Source, columns: Sequence[str]) -> None:
    """Refuse a file of a folder whose columns are not those of its first file."""
    odd = [
        name
        for name in columns
        if part.schema.names.count(name) != 1
        or part.schema.field(name).type != first.schema.field(name).type
    ]
    if odd:
        raise InputError(
            f"{part.name}: columns {odd} are missing or of other types than in {first.name}; "
            "allowed in one folder: files of one schema"
        )
    if part.settings != first.settings:
        raise InputError(
            f"{part.name} was built with other settings than {first.name}; allowed in one folder: "
            "files of one build"
        )


def _open_stream(
    stream: BinaryIO, name: str, format_name: str, stack: contextlib.ExitStack
) -> Source:
    """Open one stream of bytes as what it is."""
    first = stream.peek(1)[:1]  # type: ignore[attr-defined]
    if not first:
        raise InputError(f"{name} is empty; allowed: Parquet or Arrow")
    is_stream = first not in _FIRST_BYTES
    if format_name != AUTO and (format_name == PARQUET) != (first == b"P"):
        raise InputError(f"{name} is not {format_name}: it begins with {first!r}; try auto")
    if not is_stream and not stream.seekable():
        # Both have their directory at the end: a copy on disk keeps memory bounded.
        copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        shutil.copyfileobj(stream, copy, 1 << 20)
        copy.seek(0)
        stream = copy
    with _readable(name):
        if first == b"P":
            return _parquet(stream, name)
        return _arrow_stream(stream, name) if is_stream else _arrow_file(stream, name)


def _parquet(stream: BinaryIO, name: str) -> Source:
    file = pq.ParquetFile(stream, buffer_size=PAGE_BYTES, pre_buffer=False)

    def read(columns: Sequence[str], max_rows: int) -> Iterator[pa.RecordBatch]:
        yield from file.iter_batches(batch_size=max_rows, columns=list(columns))

    return _source(name, file.schema_arrow, read)


def _arrow_file(stream: BinaryIO, name: str) -> Source:
    file = pa.ipc.open_file(stream)

    def read(columns: Sequence[str], max_rows: int) -> Iterator[pa.RecordBatch]:
        batches = (file.get_batch(index) for index in range(file.num_record_batches))
        yield from sliced(batches, columns, max_rows)

    return _source(name, file.schema, read)


def _arrow_stream(stream: BinaryIO, name: str) -> Source:
    watched = Watched(stream)
    reader = pa.ipc.open_stream(pa.PythonFile(watched, mode="r"))

    def read(columns: Sequence[str], max_rows: int) -> Iterator[pa.RecordBatch]:
        yield from sliced(reader, columns, max_rows)
        if watched.tail != END_OF_STREAM:
            raise InputError(
                f"{name} ends without the end mark of an Arrow stream, so rows may be missing; "
                "look why its producer stopped; a producer that is done closes its writer"
            )

    return _source(name, reader.schema, read)


def sliced(
    batches: Iterable[pa.RecordBatch], columns: Sequence[str], max_rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield the columns of the batches, cut to at most ``max_rows`` rows without copying."""
    for batch in batches:
        chosen = batch.select(list(columns))
        for start in range(0, batch.num_rows, max_rows):
            yield chosen.slice(start, max_rows)


class Watched:
    """A stream that remembers the last bytes read, by which a stream cut short is known.

    Args:
        stream: Anything with ``read(size)``.
    """

    closed = False

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.tail = b""

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes; fewer only at the end."""
        data: bytes = self._stream.read(size)
        self.tail = (self.tail + data[-len(END_OF_STREAM) :])[-len(END_OF_STREAM) :]
        return data


def _source(
    name: str, schema: pa.Schema, read: Callable[[Sequence[str], int], Iterator[pa.RecordBatch]]
) -> Source:
    """Return a source whose reading errors say what was read."""

    def read_or_say(columns: Sequence[str], max_rows: int) -> Iterator[pa.RecordBatch]:
        batches = read(columns, max_rows)
        while True:
            with _readable(name):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    return Source(name, schema, read_or_say, _settings_in(schema, name))


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn errors of reading into one that names the source."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{name} cannot be read ({first_line}); allowed: Parquet, an Arrow file or an Arrow "
            "stream, whole"
        ) from error


def _settings_in(schema: pa.Schema, name: str) -> ModelSettings | None:
    """Return the settings that schema metadata tell."""
    text = (schema.metadata or {}).get(CONTRACT_KEY)
    return None if text is None else _settings_from(text, f"metadata churn_contract of {name}")


def _settings_of_snapshot(path: Path) -> ModelSettings | None:
    """Return the settings of the snapshot that a file or folder belongs to."""
    document = (path if path.is_dir() else path.parent) / SNAPSHOT_FILE
    return _settings_from(document.read_bytes(), str(document)) if document.is_file() else None


def _settings_from(text: bytes, name: str) -> ModelSettings:
    try:
        return ModelSettings.from_mapping(json.loads(text)["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{name} has no settings ({type(error).__name__}: {error}); remove it, or write it as "
            "the macro churn_score does"
        ) from error
