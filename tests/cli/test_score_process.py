"""`churn-score batch` as a process: pipes, signals, a full disk."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from score_example import arrow_stream, examples, promoted_bundle, start, write

from churn_udf.cli import main


def test_standard_input_to_standard_output_is_an_arrow_stream(tmp_path: Path) -> None:
    promoted_bundle(tmp_path / "models")
    table = examples(250)
    with start("batch", cwd=tmp_path) as process:
        output, errors = process.communicate(arrow_stream(table), timeout=120)
    assert process.returncode == 0, errors.decode()
    scored = pa.ipc.open_stream(output).read_all()
    assert scored["user_id"].to_pylist() == table["user_id"].to_pylist()
    assert b"scored 250 rows" in errors


def test_parquet_through_a_pipe(tmp_path: Path) -> None:
    promoted_bundle(tmp_path / "models")
    content = write(examples(20), tmp_path / "in.parquet").read_bytes()
    with start("batch", "--output", "out.parquet", cwd=tmp_path) as process:
        _, errors = process.communicate(content, timeout=120)
    assert process.returncode == 0, errors.decode()
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 20


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_leaves_the_file_of_before(tmp_path: Path, number: int) -> None:
    promoted_bundle(tmp_path / "models")
    target = tmp_path / "out.parquet"
    target.write_bytes(b"before")
    content = arrow_stream(examples(300))
    with start("batch", "-o", target, cwd=tmp_path) as process:
        assert process.stdin is not None
        process.stdin.write(content[: len(content) // 2])
        process.stdin.flush()
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".out.parquet.partial-*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        process.wait(timeout=60)
        process.stdin.close()
    codes = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
    assert process.returncode == codes[signal.Signals(number)]
    assert target.read_bytes() == b"before"
    left = list(tmp_path.glob(".out.parquet.partial-*"))
    assert len(left) == (1 if number == signal.SIGKILL else 0)
    if left:  # and a run a day later removes it
        os.utime(left[0], (0, 0))
        source = write(examples(3), tmp_path / "in.parquet")
        arguments = ["batch", "-i", str(source), "-o", str(target)]
        arguments += ["--models-dir", str(tmp_path / "models")]
        assert CliRunner().invoke(main, arguments).exit_code == 0
        assert pq.read_table(target).num_rows == 3
        assert not left[0].exists()


def test_a_disk_that_fills_leaves_the_file_of_before(tmp_path: Path) -> None:
    promoted_bundle(tmp_path / "models")
    write(examples(300), tmp_path / "in.parquet")
    target = tmp_path / "out.arrow"
    target.write_bytes(b"before")
    arguments = ["batch", "-i", "in.parquet", "-o", target]
    with start(*arguments, cwd=tmp_path) as process:
        # No file of this process may grow beyond 4,000 bytes: an error like that of a full disk.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4_000, 4_000))
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert b"out.arrow cannot be written" in errors
    assert b"Traceback" not in errors
    assert target.read_bytes() == b"before"
    assert not list(tmp_path.glob(".out*"))
    assert output == b""


def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path) -> None:
    promoted_bundle(tmp_path / "models")
    write(examples(200), tmp_path / "in.parquet")
    with start("batch", "-i", "in.parquet", "--quiet", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        process.wait(timeout=60)
    assert process.returncode == 1
    assert errors == b""
