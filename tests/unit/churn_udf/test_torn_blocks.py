"""DuckDB files whose checkpoint was cut off in the middle of a block."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
from dbt.adapters.exceptions.connection import FailedToConnectError

from churn_udf.warehouse import duckdb_plugin, torn_blocks
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
    connection.execute("create table mail (read int, body varchar)")
    connection.execute("insert into mail values (1, 'a column of the name of a row')")
    connection.execute("create table large as select hash(range) as note from range(100_000)")
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
            assert len(said) == 2 * was_torn
            assert not was_torn or (path in said[1] and f"at byte {start} " in said[1])
            torn += was_torn
    assert torn > 0


def torn_file(checkpoint: Checkpoint) -> tuple[str, int]:
    for start in checkpoint.rewritten():
        for pages in range(1, BLOCK_BYTES // PAGE_BYTES):
            path = checkpoint.cut_off(start, pages)
            if not opens(path):
                return path, start
    raise AssertionError("the checkpoint wrote no block in place")


def data_block(checkpoint: Checkpoint, torn: int) -> int:
    """Return where the block of a large table begins."""
    starts = range(HEADERS_BYTES, len(checkpoint.before), BLOCK_BYTES)
    return max(
        (start for start in starts if start != torn),
        key=lambda start: len(set(checkpoint.before[start : start + BLOCK_BYTES])),
    )


DAMAGES = {
    "a bit in a row": lambda checkpoint, torn: data_block(checkpoint, torn) + 100_000,
    "a checksum of rows": lambda checkpoint, torn: data_block(checkpoint, torn),
}


@pytest.mark.parametrize("place_of", DAMAGES.values(), ids=DAMAGES)
def test_other_damage_is_named_and_the_file_left_as_it_was(
    checkpoint: Checkpoint, place_of: Callable[[Checkpoint, int], int]
) -> None:
    path, start = torn_file(checkpoint)
    damaged = bytearray(Path(path).read_bytes())
    damaged[place_of(checkpoint, start)] ^= 4
    Path(path).write_bytes(damaged)
    with pytest.raises(DatabaseDamagedError, match=rf"{path}: the block at byte {start} .*backup"):
        connect_mending(path, {}, log=print)
    assert Path(path).read_bytes() == damaged
    assert not Path(path + ".mending").exists()


def test_damage_without_a_log_is_named_and_left(checkpoint: Checkpoint) -> None:
    path, _ = torn_file(checkpoint)
    found = Path(path).read_bytes()
    for log in (None, b""):
        Path(path + ".wal").unlink(missing_ok=True)
        if log is not None:
            Path(path + ".wal").write_bytes(log)
        with pytest.raises(DatabaseDamagedError, match=r"no log .*backup"):
            connect_mending(path, {}, log=pytest.fail)
        assert Path(path).read_bytes() == found


def test_a_block_of_rows_is_never_sealed(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the log's replay, on opening, met a block of rows that is damaged."""
    path, start = torn_file(checkpoint)
    damaged = bytearray(Path(path).read_bytes())
    rows_at = data_block(checkpoint, start)
    damaged[rows_at] ^= 4
    Path(path).write_bytes(damaged)
    reads = 0
    next_torn = torn_blocks._next_torn

    def one_more(path: str, config: Mapping[str, Any], sealed: list[Any]) -> Any:
        nonlocal reads
        reads += 1
        if reads > 1:
            return next_torn(path, config, sealed)
        connection = duckdb.connect(path, read_only=True)
        with connection, pytest.raises(duckdb.Error) as error:
            connection.execute("select bit_xor(hash(columns(*))) from large").fetchall()
        return torn_blocks._TornBlock.from_error(error.value)

    monkeypatch.setattr(torn_blocks, "_next_torn", one_more)
    with pytest.raises(DatabaseDamagedError, match=f"byte {rows_at} holds no metadata"):
        connect_mending(path, {}, log=print)
    assert reads == 2
    assert Path(path).read_bytes() == damaged


@pytest.mark.parametrize("moment", ["_read_all", "_next_torn"])
def test_a_kill_or_ctrl_c_while_mending_mends_nothing_by_half(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path, start = torn_file(checkpoint)
    found = Path(path).read_bytes()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torn_blocks, moment, stop)
        with pytest.raises(KeyboardInterrupt):
            connect_mending(path, {}, log=print)
    assert Path(path).read_bytes() == found
    with monkeypatch.context() as patch:
        patch.setattr(torn_blocks, moment, stop)
        patch.setattr(torn_blocks, "_put_back", stop)  # nobody cleans up after a kill
        with pytest.raises(KeyboardInterrupt):
            connect_mending(path, {}, log=print)
    assert Path(path).read_bytes() != found
    said: list[str] = []
    with connect_mending(path, {}, log=said.append) as connection:
        assert checkpoint.read(connection) == checkpoint.rows
    assert f"at byte {start}" in said[-1]
    assert not Path(path + ".mending").exists()


def test_who_opens_it_in_between_is_waited_for(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = torn_file(checkpoint)
    found = Path(path).read_bytes()

    def is_held(*_: object) -> None:
        raise duckdb.IOException(f'IO Error: Could not set lock on file "{path}": held')

    monkeypatch.setattr(torn_blocks, "_read_all", is_held)
    with pytest.raises(duckdb.IOException, match="lock"):
        connect_mending(path, {}, log=print)
    assert Path(path).read_bytes() == found


def test_a_connection_that_is_read_only_mends_nothing(checkpoint: Checkpoint) -> None:
    path, _ = torn_file(checkpoint)
    found = Path(path).read_bytes()
    with pytest.raises(duckdb.Error, match="checksum"):
        connect_mending(path, {"access_mode": "read_only"}, log=pytest.fail)
    assert Path(path).read_bytes() == found


def test_a_file_that_may_not_be_written_is_named(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path, _ = torn_file(checkpoint)
    monkeypatch.setattr(torn_blocks, "_write_note", refuse)
    with pytest.raises(DatabaseDamagedError, match=rf"{path}: .*Permission denied"):
        connect_mending(path, {}, log=print)


def test_a_plugin_mends_before_dbt_connects(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, start = torn_file(checkpoint)
    warned: list[str] = []
    log = SimpleNamespace(info=pytest.fail, warning=warned.append)
    monkeypatch.setattr(duckdb_plugin, "AdapterLogger", lambda _: log)
    plugin = duckdb_plugin.Plugin("churn", {"models_dir": "models"})
    plugin.update_connection_config(SimpleNamespace(path=path), {"threads": 1})
    assert len(warned) == 2
    assert f"at byte {start}" in warned[1]
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


def test_a_file_that_another_process_is_mending_is_waited_for(checkpoint: Checkpoint) -> None:
    path, _ = torn_file(checkpoint)
    found = Path(path).read_bytes()
    with torn_blocks._alone(path), pytest.raises(duckdb.IOException, match=r"lock on file .*mends"):
        connect_mending(path, {}, log=print)
    assert Path(path).read_bytes() == found


@pytest.mark.parametrize("access_mode", ["AUTOMATIC", "read_write"])
def test_reading_everything_never_writes(checkpoint: Checkpoint, access_mode: str) -> None:
    path, start = torn_file(checkpoint)
    damaged = bytearray(Path(path).read_bytes())
    damaged[data_block(checkpoint, start)] ^= 4
    Path(path).write_bytes(damaged)
    with pytest.raises(DatabaseDamagedError):
        connect_mending(path, {"access_mode": access_mode}, log=print)
    assert Path(path).read_bytes() == damaged
    assert Path(path + ".wal").read_bytes() == checkpoint.wal


def test_an_old_note_is_no_reason_to_change_a_file_that_others_wrote(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    path, _ = torn_file(checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr(torn_blocks, "_read_all", stop)
        patch.setattr(torn_blocks, "_put_back", stop)
        with pytest.raises(KeyboardInterrupt):
            connect_mending(path, {}, log=print)
    duckdb.connect(path).close()  # it is sealed, so that anybody can open it, and checkpoints
    with connect_mending(path, {}, log=pytest.fail) as connection:
        assert checkpoint.read(connection) == checkpoint.rows
    assert not Path(path + ".mending").exists()
