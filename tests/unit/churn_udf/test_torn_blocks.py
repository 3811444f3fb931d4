"""DuckDB files whose checkpoint was cut off in the middle of a block."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest
from dbt.adapters.exceptions.connection import FailedToConnectError

from churn_udf.warehouse import duckdb_plugin
from churn_udf.warehouse.torn_blocks import (
    HEADERS_BYTES,
    DatabaseDamagedError,
    connect_mending,
)

BLOCK_BYTES = 262_144
PAGE_BYTES = 4_096
NUM_TABLES = 40
ROWS = "select count(*), sum(n) from t{}"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A database right before a checkpoint, its log beside it, and right after."""

    folder: Path
    before: bytes
    wal: bytes
    after: bytes
    rows: dict[int, tuple[int, int]]

    def rewritten(self) -> list[int]:
        """Return where blocks begin that the checkpoint wrote again in place."""
        starts = range(HEADERS_BYTES, len(self.before), BLOCK_BYTES)
        return [
            start
            for start in starts
            if self.before[start : start + BLOCK_BYTES] != self.after[start : start + BLOCK_BYTES]
        ]

    def cut_off(self, start: int, pages: int) -> str:
        """Write the file that a kill leaves after so many pages of a block."""
        end = start + pages * PAGE_BYTES
        path = self.folder / "shop.duckdb"
        path.write_bytes(self.before[:start] + self.after[start:end] + self.before[end:])
        path.with_name(path.name + ".wal").write_bytes(self.wal)
        return str(path)

    def read(self, connection: duckdb.DuckDBPyConnection) -> dict[int, tuple[int, int]]:
        return {n: connection.execute(ROWS.format(n)).fetchone() for n in self.rows}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("torn")
    path, wal = folder / "made.duckdb", folder / "made.duckdb.wal"
    connection = duckdb.connect(str(path))
    for number in range(NUM_TABLES):
        connection.execute(f"create table t{number} as select {number} as n, 'note' as note")
    connection.execute("checkpoint")
    connection.execute("set wal_autocheckpoint = '1TB'")
    connection.execute("insert into t3 select 3, 'later' from range(1000)")
    connection.execute("create or replace table t7 as select range as n from range(50)")
    rows = {n: connection.execute(ROWS.format(n)).fetchone() for n in range(NUM_TABLES)}
    before, log = path.read_bytes(), wal.read_bytes()
    connection.execute("checkpoint")
    after = path.read_bytes()
    connection.close()
    shutil.rmtree(folder)
    folder.mkdir()
    return Checkpoint(folder, before, log, after, rows)


def opens(path: str) -> bool:
    try:
        duckdb.connect(path, read_only=True).close()
    except duckdb.Error:
        return False
    return True


def test_a_block_cut_off_at_any_page_is_mended_and_nothing_is_lost(checkpoint: Checkpoint) -> None:
    torn = 0
    for start in checkpoint.rewritten():
        for pages in range(1, BLOCK_BYTES // PAGE_BYTES):
            path, said = checkpoint.cut_off(start, pages), []
            was_torn = not opens(path)
            with connect_mending(path, {}, log=said.append) as connection:
                assert checkpoint.read(connection) == checkpoint.rows
            assert [path in line and f"at byte {start}" in line for line in said] == [
                True
            ] * was_torn
            torn += was_torn
    assert torn > 10


def torn_file(checkpoint: Checkpoint) -> tuple[str, int]:
    for start in checkpoint.rewritten():
        for pages in range(1, BLOCK_BYTES // PAGE_BYTES):
            path = checkpoint.cut_off(start, pages)
            if not opens(path):
                return path, start
    raise AssertionError("the checkpoint wrote no block in place")


def test_other_damage_is_named_and_the_file_left_as_it_was(checkpoint: Checkpoint) -> None:
    path, start = torn_file(checkpoint)
    damaged = bytearray(Path(path).read_bytes())
    for other in range(HEADERS_BYTES, len(damaged), BLOCK_BYTES):
        if other != start:
            damaged[other + 8] ^= 255
    Path(path).write_bytes(damaged)
    with pytest.raises(DatabaseDamagedError, match=rf"{path}: the block at byte {start} .*backup"):
        connect_mending(path, {}, log=pytest.fail)
    assert Path(path).read_bytes() == damaged


def test_a_plugin_mends_before_dbt_connects(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, start = torn_file(checkpoint)
    warned: list[str] = []
    log = SimpleNamespace(info=pytest.fail, warning=warned.append)
    monkeypatch.setattr(duckdb_plugin, "AdapterLogger", lambda _: log)
    plugin = duckdb_plugin.Plugin("churn", {"models_dir": "models"})
    plugin.update_connection_config(SimpleNamespace(path=path), {"threads": 1})
    assert len(warned) == 1
    assert f"at byte {start}" in warned[0]
    with duckdb.connect(path) as connection:
        assert checkpoint.read(connection) == checkpoint.rows


def test_a_plugin_tells_dbt_of_damage(checkpoint: Checkpoint) -> None:
    path, start = torn_file(checkpoint)
    damaged = bytearray(Path(path).read_bytes())
    damaged[start + 8 : start + BLOCK_BYTES] = bytes(BLOCK_BYTES - 8)
    Path(path).write_bytes(damaged)
    plugin = duckdb_plugin.Plugin("churn", {"models_dir": "models"})
    with pytest.raises(FailedToConnectError, match=f"block at byte {start}"):
        plugin.update_connection_config(SimpleNamespace(path=path), {})
    assert Path(path).read_bytes() == damaged


def test_what_is_not_a_database_is_left_to_duckdb(tmp_path: Path) -> None:
    path = tmp_path / "notes.duckdb"
    path.write_text("not a database")
    with pytest.raises(duckdb.Error):
        connect_mending(str(path), {}, log=pytest.fail)
    assert path.read_text() == "not a database"


def test_a_file_that_another_process_is_mending_is_left_to_it(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_locked(*_: object) -> None:
        raise BlockingIOError

    path, _ = torn_file(checkpoint)
    found = Path(path).read_bytes()
    monkeypatch.setattr("fcntl.lockf", is_locked)
    with pytest.raises(duckdb.Error, match="checksum"):
        connect_mending(path, {}, log=pytest.fail)
    assert Path(path).read_bytes() == found
