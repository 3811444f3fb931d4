from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from training_example import TINY_FLAGS, Trained

from trainer.data.synthetic import synthetic_snapshot

Invoke = Callable[..., Result]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ["fit"], "no snapshot in snapshots; run `churn-train snapshot`", id="snapshot"
        ),
        pytest.param(["evaluate"], "no run in runs; run `churn-train fit`", id="run"),
        pytest.param(["package", "abc"], "'abc' is not a run", id="package"),
        pytest.param(["promote"], "run `churn-train run` first", id="model"),
        pytest.param(["fit", "--set", "fit.epoch=1"], "did you mean 'epochs'", id="setting"),
        pytest.param(["fit", "--set", "fit.seed=x"], "a whole number", id="value"),
        pytest.param(
            ["snapshot", "--project-dir", "nowhere", "--profiles-dir", "nowhere"],
            "nowhere",
            id="project",
        ),
    ],
)
def test_expected_failure_exits_1_with_one_line(
    invoke: Invoke,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["nothing"], id="command"),
        pytest.param(["fit", "--nothing"], id="option"),
        pytest.param(["fit", "--epochs", "0"], id="range"),
        pytest.param(["fit", "--epochs", "many"], id="type"),
        pytest.param(["fit", "--set", "fit.epochs"], id="set"),
        pytest.param(["fit", "--config", "no.yaml"], id="file"),
        pytest.param(["parity", "--rows", "0"], id="rows"),
    ],
)
def test_wrong_usage_exits_2(invoke: Invoke, arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_unknown_variable_is_refused(invoke: Invoke, trained: Trained) -> None:
    result = invoke("fit", env={"CHURN_TRAIN_FIT_SEEDS": "1"})
    assert result.exit_code == 1
    assert "did you mean 'CHURN_TRAIN_FIT_SEED'" in result.stderr


def test_damaged_snapshot_exits_1(invoke: Invoke, trained: Trained) -> None:
    shard = trained.snapshot.path / "part-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[1000] ^= 255
    shard.write_bytes(content)
    result = invoke("fit", *TINY_FLAGS)
    assert result.exit_code == 1
    assert "is damaged" in result.stderr
    assert "churn-train snapshot" in result.stderr


def test_our_own_bugs_are_not_hidden(
    invoke: Invoke, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise AssertionError("bug")

    monkeypatch.setattr("trainer.pipeline.fit_step", fail)
    result = invoke("fit", *TINY_FLAGS)
    assert isinstance(result.exception, AssertionError)


def test_interrupt_in_process_exits_130(
    invoke: Invoke, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.pipeline.fit_step", interrupt)
    result = invoke("fit", *TINY_FLAGS)
    assert result.exit_code == 130
    assert "goes on from the last checkpoint" in result.stderr


def test_interrupted_training_keeps_its_checkpoint(tmp_path: Path) -> None:
    """A real Ctrl-C while training; that the checkpoint is resumed is tested with fit."""
    synthetic_snapshot(tmp_path / "snapshots", num_users=60)
    slow = ["--set", "fit.numeric_epochs=100000", "--set", "fit.checkpoint_seconds=0"]
    slow += ["--set", "fit.patience=100000"]
    command = [sys.executable, "-m", "trainer", "fit", *TINY_FLAGS, *slow]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        # A runner in the background of a shell hands down an ignored Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("runs/*/fits/first/checkpoint/*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    # Python ends by the signal itself when it came inside an import that C code had begun;
    # a shell shows 130 for both.
    assert process.returncode in (130, -signal.SIGINT), errors.decode()
    assert b"interrupted: " in errors
    assert b"Traceback" not in errors
    (run,) = (tmp_path / "runs").iterdir()
    assert not (run / "fit.json").exists()
    assert list((run / "fits" / "first" / "checkpoint").iterdir())
