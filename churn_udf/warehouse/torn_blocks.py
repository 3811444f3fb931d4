"""Opens a DuckDB file in which a kill cut a checkpoint off while it wrote a block of metadata.

DuckDB's checkpoint puts new metadata into the free parts of blocks that the last complete
checkpoint still uses, and writes such a block again in place. Linux ends a write at the next page
when its process is killed, so ``kill -9`` in those microseconds leaves the first pages new, the
last ones old, and a checksum that fits neither; then the whole file cannot be opened. The parts
that the last checkpoint uses are alike in both, so nothing but the checksum is wrong.

A checksum is evidence, and this module takes it away only where a cut-off checkpoint is the one
explanation left: DuckDB meets the block while it opens the file, a write-ahead log is there that
the end of a checkpoint would have emptied, the block is metadata, and everything can be read. A
checkpoint that began without a log, in a commit too large for one, leaves no such evidence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from churn_udf.errors import ChurnError
from churn_udf.warehouse.file_lock import is_lock_error

HEADERS_BYTES = 3 * 4_096
"""A DuckDB file begins with three headers; the blocks follow."""
MAX_BLOCKS = 8
"""A kill cuts off one write of each thread; more wrong blocks are damage of another kind."""

_TORN = re.compile(
    r"computed checksum (?P<computed>\d+) does not match stored checksum (?P<stored>\d+) "
    r"in block at location (?P<location>\d+)"
)


class DatabaseDamagedError(ChurnError):
    """The DuckDB file has damage that is not mended."""


class _OtherDamageError(Exception):
    """More is wrong than blocks that a checkpoint was writing."""


@dataclasses.dataclass(frozen=True, slots=True)
class _TornBlock:
    """A block whose content and checksum differ, as DuckDB's message tells."""

    location: int
    """Byte at which the block, and with it the checksum, begins."""
    stored: int
    """The checksum in the file."""
    computed: int
    """The checksum of the content."""

    @classmethod
    def from_error(cls, error: Exception) -> _TornBlock | None:
        match = _TORN.search(str(error))
        if match is None or int(match["location"]) < HEADERS_BYTES:
            return None
        return cls(int(match["location"]), int(match["stored"]), int(match["computed"]))

    def seal(self, path: str) -> None:
        """Write the checksum of the content."""
        _replace(path, self.location, old=self.stored, new=self.computed)

    def unseal(self, path: str) -> None:
        """Write the checksum that was there."""
        _replace(path, self.location, old=self.computed, new=self.stored)


def connect_mending(path: str, config: Mapping[str, Any], *, log: Callable[[str], None]) -> Any:
    """Open a database; if a cut-off checkpoint hinders that, mend the file first.

    The block gets the checksum of its content; then every row of every table is read, against the
    checksums of their own blocks, and if anything is amiss the file is put back as it was. What
    the checksum was is kept beside the file, in ``<path>.mending``, until that is done: a run
    that finds it there puts the file back and begins anew.

    Args:
        path: The database.
        config: Options of the connection; one that is read-only mends nothing.
        log: Told what is found and done.

    Returns:
        A connection of DuckDB.

    Raises:
        DatabaseDamagedError: The file has damage that is not mended, or may not be written; it is
            as it was.
        duckdb.Error: Whatever else hinders opening; another process that mends it is a lock.
    """
    import duckdb

    is_read_only = str(config.get("access_mode", "")).upper() == "READ_ONLY"
    if sys.platform == "win32" or is_read_only:
        return duckdb.connect(path, config=dict(config))
    try:
        if _note_of(path).exists():
            with _alone(path):
                _put_back(path)
        try:
            return duckdb.connect(path, config=dict(config))
        except duckdb.Error as error:
            torn = _TornBlock.from_error(error)
            if torn is None:
                raise
            if not _has_log(path):
                raise _damaged(path, torn, f"no log says that a kill did it: {error}") from error
        log(
            f"{path} has a block that does not match its checksum, and a log that no checkpoint "
            "emptied: reading everything in it to see whether a kill is all that happened"
        )
        with _alone(path):
            mended = _mend(path, config, torn)
    except BlockingIOError as error:
        raise duckdb.IOException(
            f'Could not set lock on file "{path}": another process has it open or mends it'
        ) from error
    except OSError as error:
        raise DatabaseDamagedError(
            f"cannot open {path}: a checkpoint was cut off in it, and it cannot be mended "
            f"({error}); let the next run write the file and its folder"
        ) from error
    places = ", ".join(
        f"at byte {block.location} (checksum {block.stored}, now {block.computed})"
        for block in mended
    )
    log(
        f"a process that wrote {path} was killed during a checkpoint and left metadata half "
        f"written {places}; its used part is whole, every row of every table was read, and the "
        "file is mended: nothing that was committed is lost"
    )
    return duckdb.connect(path, config=dict(config))


def _mend(path: str, config: Mapping[str, Any], torn: _TornBlock) -> list[_TornBlock]:
    """Seal the blocks that hinder opening and read everything, or put all back and raise."""
    import duckdb

    sealed: list[_TornBlock] = []
    found: _TornBlock | None = torn
    state = _state_of(path)
    try:
        while found is not None:
            sealed.append(found)
            _write_note(path, sealed, state)
            found.seal(path)
            found = _next_torn(path, config, sealed)
        _read_all(path, config, sealed)
    except (_OtherDamageError, duckdb.Error) as error:
        _put_back(path)
        if is_lock_error(error):
            raise  # somebody else opened it in between: the caller waits
        raise _damaged(path, torn, f"a kill does not explain all: {error}") from error
    except BaseException:
        _put_back(path)
        raise
    _note_of(path).unlink()
    return sealed


def _damaged(path: str, torn: _TornBlock, why: str) -> DatabaseDamagedError:
    """Return the error for damage that is left as it is."""
    return DatabaseDamagedError(
        f"cannot open {path}: the block at byte {torn.location} does not match its checksum, and "
        f"{why.splitlines()[0]}. The file is as it was: restore it from a backup, or move it away "
        "and run `dbt build` to make it anew from the sources; models and published Parquet lie "
        "outside it"
    )


def _next_torn(path: str, config: Mapping[str, Any], sealed: list[_TornBlock]) -> _TornBlock | None:
    """Return the next block that hinders opening, none when nothing does."""
    import duckdb

    try:
        _open_to_read(path, config).close()
    except duckdb.Error as error:
        found = _TornBlock.from_error(error)
        is_new = found is not None and found.location not in {one.location for one in sealed}
        if not is_new or len(sealed) == MAX_BLOCKS:
            raise
        return found
    return None


def _read_all(path: str, config: Mapping[str, Any], sealed: list[_TornBlock]) -> None:
    """Read each value of each table, as the write-ahead log leaves them; write nothing."""
    with _open_to_read(path, config) as connection:
        (block_bytes,) = connection.execute(
            "select block_size from pragma_database_size() where database_name = current_database()"
        ).fetchone()
        metadata = {
            HEADERS_BYTES + block_id * block_bytes
            for (block_id,) in connection.execute(
                "select block_id from pragma_metadata_info()"
            ).fetchall()
        }
        others = [block.location for block in sealed if block.location not in metadata]
        if others:
            raise _OtherDamageError(f"the block at byte {others[0]} holds no metadata")
        tables = connection.execute(
            "select database_name, schema_name, table_name from duckdb_tables() where not internal"
        ).fetchall()
        for names in tables:
            relation = ".".join('"' + name.replace('"', '""') + '"' for name in names)
            connection.execute(f"select bit_xor(hash(columns(*))) from {relation}").fetchall()


def _open_to_read(path: str, config: Mapping[str, Any]) -> Any:
    """Open the database without writing it."""
    import duckdb

    # Its own key in the configuration would win over the argument.
    options = {key: value for key, value in config.items() if key.lower() != "access_mode"}
    return duckdb.connect(path, read_only=True, config=options)


def _has_log(path: str) -> bool:
    """Tell whether a write-ahead log is left, as it is until a checkpoint has ended."""
    log = Path(path + ".wal")
    return log.is_file() and log.stat().st_size > 0


def _state_of(path: str) -> str:
    """Return a hash of headers and length of the log: they tell whether anybody wrote the file."""
    with Path(path).open("rb") as file:
        headers = file.read(HEADERS_BYTES)
    log_bytes = Path(path + ".wal").stat().st_size if _has_log(path) else 0
    return f"{hashlib.sha256(headers).hexdigest()} {log_bytes}"


@contextlib.contextmanager
def _alone(path: str) -> Iterator[None]:
    """Keep other processes from mending the file, too.

    Raises:
        BlockingIOError: One of them is at it.
    """
    import fcntl

    with Path(path + ".mending.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _note_of(path: str) -> Path:
    """Return where it is noted what is being mended."""
    return Path(path + ".mending")


def _write_note(path: str, sealed: list[_TornBlock], state: str) -> None:
    """Note which checksums are replaced, before they are, and in what file."""
    draft = Path(path + ".mending.draft")
    blocks = [dataclasses.astuple(block) for block in sealed]
    with draft.open("w", encoding="utf-8") as file:
        json.dump({"state": state, "blocks": blocks}, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(_note_of(path))


def _put_back(path: str) -> None:
    """Write the checksums that were there, unless others wrote the file since, and drop the note.

    Raises:
        BlockingIOError: Another process has the file open; the note stays.
    """
    note = _note_of(path)
    if note.exists():
        document = json.loads(note.read_text(encoding="utf-8"))
        if document["state"] == _state_of(path):
            for values in reversed(document["blocks"]):
                _TornBlock(*values).unseal(path)
        note.unlink()


def _replace(path: str, location: int, *, old: int, new: int) -> None:
    """Replace a checksum, if it still is the one expected, under the lock that DuckDB takes.

    Raises:
        BlockingIOError: Another process has the file open.
    """
    import fcntl

    with Path(path).open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.seek(location)
        if int.from_bytes(file.read(8), "little") == old:
            file.seek(location)
            file.write(new.to_bytes(8, "little"))
            file.flush()
            os.fsync(file.fileno())
