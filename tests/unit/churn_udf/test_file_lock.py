"""Waiting for a DuckDB file that another process holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import duckdb
import pytest

from churn_udf.errors import SettingsError
from churn_udf.warehouse.duckdb_plugin import Plugin
from churn_udf.warehouse.file_lock import DatabaseLockedError, wait_for_file

LOCKED = (
    'IO Error: Could not set lock on file "{path}": Conflicting lock is held in '
    "/usr/bin/python3.11 (PID 4711). See also https://duckdb.org/docs"
)


@dataclasses.dataclass
class Machine:
    """A file that is free after some seconds, and a clock that only sleeping moves."""

    path: Path
    free_after: float
    error: str = LOCKED
    now: float = 0.0
    tries: int = 0
    said: list[str] = dataclasses.field(default_factory=list)

    def connect(self, path: str, config) -> duckdb.DuckDBPyConnection:
        assert path == str(self.path)
        assert config == {"threads": 1}
        self.tries += 1
        if self.now < self.free_after:
            raise duckdb.IOException(self.error.format(path=path))
        return duckdb.connect()

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def wait(self, seconds: float) -> None:
        wait_for_file(
            str(self.path),
            {"threads": 1},
            seconds=seconds,
            log=self.said.append,
            connect=self.connect,
            clock=lambda: self.now,
            sleep=self.sleep,
        )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "shop.duckdb"
    duckdb.connect(str(path)).close()
    return path


def test_a_free_file_is_opened_once_and_nothing_is_said(path):
    machine = Machine(path, free_after=0)
    machine.wait(30)
    assert (machine.tries, machine.said) == (1, [])


def test_a_held_file_is_waited_for_and_that_is_said_once(path):
    machine = Machine(path, free_after=10)
    machine.wait(30)
    assert 10 <= machine.now < 11
    assert machine.said == [
        f"{path} is held by process 4711 (python3.11); waiting up to 30 s for it"
    ]


@pytest.mark.parametrize("seconds", [0, 3])
def test_a_file_held_for_too_long_is_an_error_that_says_what_to_do(path, seconds):
    machine = Machine(path, free_after=3.1)
    with pytest.raises(DatabaseLockedError) as raised:
        machine.wait(seconds)
    assert machine.now == seconds
    for part in (f"cannot open {path}", "process 4711 (python3.11)", f"{seconds} s", "run again"):
        assert part in str(raised.value)


def test_a_holder_without_name_is_another_process(path):
    machine = Machine(path, free_after=1, error="IO Error: Could not set lock on file")
    with pytest.raises(DatabaseLockedError, match="another process has it open"):
        machine.wait(0)


@pytest.mark.parametrize("error", ["not a valid DuckDB database file", "in block at location 9"])
def test_other_errors_are_left_to_who_opens_the_file(path, error):
    machine = Machine(path, free_after=1, error=f"IO Error: {error}")
    machine.wait(30)
    assert (machine.tries, machine.now) == (1, 0)
    path.write_text("not a database " * 1_000)
    options = {"seconds": 30, "log": machine.said.append}
    wait_for_file(str(path), {}, connect=lambda path, _: duckdb.connect(path), **options)
    assert machine.said == []


@pytest.mark.parametrize("name", [":memory:", "md:shop", "missing.duckdb"])
def test_what_is_no_file_is_free(name, tmp_path):
    path = name if ":" in name else str(tmp_path / name)
    wait_for_file(path, {}, seconds=0, log=print, connect=lambda *_: pytest.fail("opened"))
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("value", [-1, "30", True, float("inf"), float("nan")])
def test_the_plugin_refuses_other_waits_than_seconds(value):
    with pytest.raises(SettingsError, match=r"lock_wait_seconds .*; allowed: a number of seconds"):
        Plugin("churn", {"models_dir": "models", "lock_wait_seconds": value})


def test_the_plugin_waits_as_told_and_by_default():
    assert Plugin("churn", {"models_dir": "models"}).lock_wait_seconds == 30
    told = Plugin("churn", {"models_dir": "models", "lock_wait_seconds": 0})
    assert told.lock_wait_seconds == 0
