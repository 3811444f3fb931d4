"""What the machine, another process or a user does to a run: a clear message, whole tables.

Every run is a dbt process of its own on a real DuckDB file, disturbed while it scores.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dbt_runs import (
    DATABASE_NAME,
    NUM_USERS,
    SCORING,
    Run,
    Tables,
    Workload,
    are_alike,
    leaked_tables,
    profile_with,
    read_tables,
    wal_of,
)

from churn_udf.bundle_store import set_champion

SLOW = {"seconds_per_row": 0.01, "chunk_rows": 4, "chunk_seconds": 0.0}
"""Chunks of four rows, 40 ms each."""
HALF = f"kept {NUM_USERS // 2}"
NO_WAIT = {"CHURN_LOCK_WAIT_SECONDS": "0.5"}
READER = """
import duckdb, sys
with duckdb.connect(sys.argv[1], read_only=True):
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def after(workload: Workload, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """What an undisturbed run leaves."""
    database = workload.copy_to(tmp_path_factory.mktemp("after") / "warehouse")
    workload.server.succeed(database)
    tables = read_tables(database)
    assert len(tables.current) == NUM_USERS
    assert {key[4] for key in tables.current} == {workload.second.bundle_id}
    return tables


@pytest.fixture
def database(workload: Workload, tmp_path: Path) -> Path:
    """A copy with everything to score."""
    return workload.copy_to(tmp_path / "warehouse")


@pytest.fixture
def models_dir(workload: Workload, tmp_path: Path) -> Path:
    """A copy of the models directory, to spoil."""
    return Path(shutil.copytree(workload.models_dir, tmp_path / "models"))


def must_be_as_before(workload: Workload, database: Path, *, kept: int) -> None:
    """Check that published tables are the old ones, whole, and the work done is kept."""
    found = read_tables(database)
    for name in ("scored", "scores", "current"):
        assert are_alike(getattr(found, name), getattr(workload.before, name)), name
    assert len(found.cache) == len(workload.before.cache) + kept


def must_be_done(database: Path, after: Tables) -> None:
    """Check that everything is as an undisturbed run leaves it."""
    found = read_tables(database)
    for field in dataclasses.fields(Tables):
        assert are_alike(getattr(found, field.name), getattr(after, field.name)), field.name
    assert leaked_tables(database) == []


def must_go_on(workload: Workload, database: Path, after: Tables, *, kept: int) -> None:
    """Check what a failed run left, and that the next one does the rest and only that."""
    must_be_as_before(workload, database, kept=kept)
    run = workload.server.succeed(database)
    assert run.kept == NUM_USERS - kept
    must_be_done(database, after)


def message_of(run: Run, *parts: object) -> str:
    """Return the one line of output that has all parts."""
    lines = [line for line in run.output.splitlines() if all(str(part) in line for part in parts)]
    assert len(lines) == 1, run.output
    return lines[0]


def test_a_second_run_says_who_holds_the_file_and_harms_nothing(workload, database, after):
    first = workload.server.start(database, **SLOW)
    assert first.wait_for(HALF)
    second = workload.server.start(database, environment=NO_WAIT)
    assert second.wait() != 0
    said = message_of(second, f"cannot open {database}", f"process {first.pid} (")
    for part in ("0.5 s", "one process", "Let that process end or stop it", "run again"):
        assert part in said
    assert "Traceback" not in second.output
    assert "connect" not in second.marks[second.marks.index("connect") + 1 :]
    assert first.wait() == 0, first.output
    must_be_done(database, after)


def test_a_second_run_waits_for_the_first(workload, database, after):
    first = workload.server.start(database, **SLOW)
    assert first.wait_for(HALF)
    second = workload.server.start(database)
    assert first.wait() == second.wait() == 0, second.output
    message_of(second, f"{database} is held by process {first.pid}", "waiting up to 30 s")
    assert (first.kept, second.kept) == (NUM_USERS, 0)
    must_be_done(database, after)


def test_a_reader_that_holds_the_file_is_named(workload, database, after):
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdout.readline() == "open\n"
    run = workload.server.start(database, environment=NO_WAIT)
    assert run.wait() != 0
    message_of(run, f"cannot open {database}", f"process {reader.pid} (", "close what reads")
    assert "Traceback" not in run.output
    reader.communicate("")
    assert reader.returncode == 0
    must_go_on(workload, database, after, kept=0)


def test_a_file_that_cannot_grow_ends_the_run_with_advice(workload, database, after):
    arguments = ("run", "--no-write-json", "-s", *SCORING)  # dbt's own files are larger
    run = workload.server.start(database, arguments, file_bytes=100_000, **SLOW)
    assert run.wait() == 1
    said = message_of(run, "int_inputs_scored failed", "the disk is full at", database)
    assert "File too large" in said
    assert "free space" in said
    assert 0 < run.kept < NUM_USERS
    must_go_on(workload, database, after, kept=run.kept)


@pytest.fixture
def small_disk(workload: Workload, tmp_path: Path) -> Iterator[Path]:
    """A file system with little room beside the database."""
    disk = tmp_path / "disk"
    disk.mkdir()
    size = workload.database.stat().st_size + 150_000
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system; the test above needs none")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_disk_that_fills_ends_the_run_with_advice(workload, database, after, small_disk):
    full = Path(shutil.copy(database, small_disk / DATABASE_NAME))
    run = workload.server.start(full, **SLOW)
    assert run.wait() == 1
    message_of(run, "int_inputs_scored failed", f"the disk is full at {full}", "No space left")
    assert run.kept < NUM_USERS
    for path in (full, wal_of(full)):
        if path.exists():
            shutil.copy(path, database.parent)
    must_go_on(workload, database, after, kept=run.kept)


def test_a_champion_promoted_meanwhile_waits_for_the_next_run(
    workload, database, after, models_dir
):
    environment = {"CHURN_MODELS_DIR": str(models_dir)}
    run = workload.server.start(database, environment=environment, **SLOW)
    assert run.wait_for(HALF)
    set_champion(models_dir, workload.first.bundle_id, reason="rollback")
    assert run.wait() == 0, run.output
    must_be_done(database, after)
    run = workload.server.succeed(database, environment=environment)
    assert run.kept == 0
    assert are_alike(read_tables(database).current, workload.before.current)


@pytest.mark.parametrize("is_removed", [False, True], ids=["overwritten", "removed"])
def test_a_bundle_spoilt_meanwhile_does_not_reach_the_scores(
    workload, database, after, models_dir, is_removed
):
    environment = {"CHURN_MODELS_DIR": str(models_dir)}
    run = workload.server.start(database, environment=environment, **SLOW)
    assert run.wait_for(HALF)
    directory = models_dir / "bundles" / workload.second.bundle_id
    if is_removed:
        shutil.rmtree(directory)
    else:
        for path in [path for path in directory.rglob("*") if path.is_file()]:
            path.write_bytes(b"")
    assert run.wait() == 0, run.output
    must_be_done(database, after)
    run = workload.server.start(database, environment=environment)
    assert run.wait() == 1
    message_of(run, workload.second.bundle_id, "no bundle at" if is_removed else "manifest")
    must_be_done(database, after)


def test_a_low_memory_limit_is_enough_or_is_named(workload, database, after, tmp_path):
    too_low = profile_with(tmp_path / "too_low", memory_limit="10MB")
    run = workload.server.start(database, profiles_dir=too_low)
    assert run.wait() == 1
    message_of(run, "int_inputs_scored failed", "memory_limit is too low", "raise it")
    must_be_as_before(workload, database, kept=0)
    low = profile_with(tmp_path / "low", memory_limit="100MB")
    workload.server.succeed(database, profiles_dir=low)
    must_be_done(database, after)


def test_ctrl_c_ends_the_run_soon_and_keeps_its_work(workload, database, after):
    run = workload.server.start(database, **SLOW | {"seconds_per_row": 0.05})
    assert run.wait_for("kept 20")
    run.signal(signal.SIGINT)
    assert run.wait() not in (0, -signal.SIGINT)
    said = message_of(run, "interrupted;")
    assert "scores made so far are kept" in said
    assert "run dbt again to go on" in said
    # The chunk in hand takes 0.2 s, the rest would take 5 s.
    assert 20 <= run.kept <= NUM_USERS // 2
    must_go_on(workload, database, after, kept=run.kept)


@pytest.mark.parametrize("threads", ["1", "4"])
def test_any_number_of_dbt_threads_will_do(workload, database, after, threads):
    workload.server.succeed(database, environment={"CHURN_THREADS": threads})
    must_be_done(database, after)
