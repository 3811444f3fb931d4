"""Opens a DuckDB file in which a kill cut a checkpoint off while it wrote a block of metadata.

DuckDB's checkpoint puts new metadata into the free parts of blocks that the last complete
checkpoint still uses, and writes such a block again in place. Linux ends a write at the next page
when its process is killed, so ``kill -9`` in those microseconds leaves the first pages new, the
last ones old, and a checksum that fits neither; then the whole file cannot be opened. The parts
that the last checkpoint uses are alike in both, so nothing but the checksum is wrong.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from churn_udf.errors import ChurnError

HEADERS_BYTES = 3 * 4_096
"""A DuckDB file begins with three headers; the blocks follow."""
MAX_BLOCKS = 8
"""A kill cuts off one write of each thread; more wrong blocks are damage of another kind."""

_TORN = re.compile(
    r"computed checksum (?P<computed>\d+) does not match stored checksum (?P<stored>\d+) "
    r"in block at location (?P<location>\d+)"
)


class DatabaseDamagedError(ChurnError):
    """The DuckDB file has damage that no cut-off checkpoint explains."""


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

    A block is taken for torn when DuckDB, which reads only metadata to open a file, finds its
    checksum wrong. It gets the checksum of its content; then every row of every table is read,
    against the checksums of their own blocks, and if anything is amiss the file is put back as it
    was.

    Args:
        path: The database.
        config: Options of the connection.
        log: Told what was found and done.

    Returns:
        A connection of DuckDB.

    Raises:
        DatabaseDamagedError: The file has other damage, too; it is as it was.
        duckdb.Error: Whatever else hinders opening.
    """
    import duckdb

    try:
        return duckdb.connect(path, config=dict(config))
    except duckdb.Error as error:
        torn = _TornBlock.from_error(error)
        if torn is None or sys.platform == "win32":
            raise
    try:
        mended = _mend(path, config, torn)
    except BlockingIOError:  # another process is mending it, or has done so and works in it
        return duckdb.connect(path, config=dict(config))
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
    """Seal torn blocks until all of the file can be read, or put them back and raise."""
    import duckdb

    mended: list[_TornBlock] = []
    found: _TornBlock | None = torn
    while found is not None:
        found.seal(path)
        mended.append(found)
        try:
            _read_all(path, config)
            found = None
        except duckdb.Error as error:
            found = _TornBlock.from_error(error) if len(mended) < MAX_BLOCKS else None
            if found is None or found.location in {block.location for block in mended}:
                for block in reversed(mended):
                    block.unseal(path)
                raise DatabaseDamagedError(
                    f"cannot open {path}: the block at byte {torn.location} does not match its "
                    "checksum, and more than a checkpoint that was cut off is wrong: "
                    f"{str(error).splitlines()[0]}. The file is as it was: restore it from a "
                    "backup, or move it away and run `dbt build` to make it anew from the sources; "
                    "models and published Parquet lie outside it"
                ) from error
    return mended


def _read_all(path: str, config: Mapping[str, Any]) -> None:
    """Read each value of each table, as the write-ahead log leaves them; write nothing."""
    import duckdb

    with duckdb.connect(path, read_only=True, config=dict(config)) as connection:
        tables = connection.execute(
            "select database_name, schema_name, table_name from duckdb_tables() where not internal"
        ).fetchall()
        for names in tables:
            relation = ".".join('"' + name.replace('"', '""') + '"' for name in names)
            connection.execute(f"select bit_xor(hash(read)) from {relation} as read").fetchall()


def _replace(path: str, location: int, *, old: int, new: int) -> None:
    """Replace a checksum under the lock that DuckDB takes, if it still is the one expected."""
    import fcntl

    with Path(path).open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.seek(location)
        if int.from_bytes(file.read(8), "little") == old:
            file.seek(location)
            file.write(new.to_bytes(8, "little"))
            file.flush()
