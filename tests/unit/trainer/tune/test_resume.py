"""A study outlives its processes: kills, budgets, several at once."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tune_example
from tune_example import UNPRUNED, FakeFit, Killed, facts, run, use_fake

from trainer.data.snapshot import Snapshot
from trainer.errors import RunError
from trainer.tune import search
from trainer.tune.config import TuneConfig


def test_same_command_goes_on_and_repeats_nothing(
    snapshot: Snapshot, fake: FakeFit, tmp_path: Path
) -> None:
    whole = run(snapshot, tmp_path / "whole", UNPRUNED)
    fake.fits.clear()
    run(snapshot, tmp_path / "parts", dataclasses.replace(UNPRUNED, num_trials=3))
    assert len(fake.fits) == 3
    parts = run(snapshot, tmp_path / "parts", UNPRUNED)
    assert len(fake.fits) == 8
    assert facts(parts) == facts(whole)
    run(snapshot, tmp_path / "parts", UNPRUNED)
    assert len(fake.fits) == 8


@pytest.mark.parametrize("error", [Killed, KeyboardInterrupt])
@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_killed_search_ends_like_an_undisturbed_one(
    error: type[BaseException],
    sampler: str,
    snapshot: Snapshot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = TuneConfig(num_trials=13, pruner="none", sampler=sampler)

    def die(number: int) -> None:
        if number == 5:
            raise error

    use_fake(monkeypatch)
    whole = run(snapshot, tmp_path / "whole", settings)
    cut = use_fake(monkeypatch, die)
    with pytest.raises(error):
        run(snapshot, tmp_path / "cut", settings)
    assert facts(run(snapshot, tmp_path / "cut", settings)) == facts(whole)
    assert len(cut.fits) == 14, "the trial under way is run again, no other one"


def test_trial_that_kills_its_process_again_and_again_is_given_up(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(number: int) -> None:
        if number in (2, 3, 4):
            raise Killed

    use_fake(monkeypatch, die)
    for _ in range(3):
        with pytest.raises(Killed):
            run(snapshot, tmp_path, UNPRUNED)
    states = [row.state for row in run(snapshot, tmp_path, UNPRUNED).trials]
    assert states == ["complete", "failed", *["complete"] * 6]


def test_time_budget_keeps_the_trial_under_way(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = use_fake(monkeypatch, lambda number: clock.advance(25.0))
    clock = Clock(monkeypatch)
    settings = dataclasses.replace(UNPRUNED, max_minutes=1.0)
    outcome = run(snapshot, tmp_path, settings)
    assert [row.state for row in outcome.trials] == ["complete", "complete", "waiting"]
    assert len(fake.fits) == 3
    again = run(snapshot, tmp_path, settings)
    assert [row.state for row in again.trials[:3]] == ["complete"] * 3
    assert again.trials[2].params == outcome.trials[2].params


def test_no_trial_in_time_is_a_clear_error(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    use_fake(monkeypatch, lambda number: clock.advance(100.0))
    with pytest.raises(RunError, match=r"none is complete.*--max-minutes"):
        run(snapshot, tmp_path, dataclasses.replace(UNPRUNED, max_minutes=1.0))


class Clock:
    """A clock that only moves when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(search.time, "monotonic", lambda: self.now)

    def advance(self, seconds: float) -> None:
        self.now += seconds


def test_seed_that_is_done_is_not_trained_again(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(number: int) -> None:
        if number == 2:
            raise Killed

    fake = use_fake(monkeypatch, die)
    settings = dataclasses.replace(UNPRUNED, num_trials=1, num_seeds=2)
    with pytest.raises(Killed):
        run(snapshot, tmp_path, settings)
    run(snapshot, tmp_path, settings)
    assert [fit.seed for fit in fake.fits] == [0, 1, 1]


def test_half_written_journal_line_is_dropped(
    snapshot: Snapshot, fake: FakeFit, tmp_path: Path
) -> None:
    first = run(snapshot, tmp_path, dataclasses.replace(UNPRUNED, num_trials=3))
    with (first.folder / "journal.log").open("a") as stream:
        stream.write('{"op_code":8,"worker')
    again = run(snapshot, tmp_path, dataclasses.replace(UNPRUNED, num_trials=5))
    assert [row.state for row in again.trials] == ["complete"] * 5
    assert facts(again)[:3] == facts(first)


def start(snapshot: Snapshot, folder: Path, *arguments: object) -> subprocess.Popen[bytes]:
    """Search in a process of its own."""
    root = Path(tune_example.__file__).parent
    paths = [str(root), str(root.parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, str(root / "tune_example.py"), str(snapshot.path), str(folder)]
        + [str(item) for item in arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


def test_processes_share_a_study_and_one_may_die(
    snapshot: Snapshot, fake: FakeFit, tmp_path: Path
) -> None:
    whole = run(snapshot, tmp_path / "whole", dataclasses.replace(UNPRUNED, num_trials=24))
    shared = tmp_path / "shared"
    workers = [start(snapshot, shared, 24), start(snapshot, shared, 24, 3)]
    codes = [worker.wait(timeout=60) for worker in workers]
    fake.fits.clear()
    outcome = run(snapshot, shared, dataclasses.replace(UNPRUNED, num_trials=24))
    assert codes == [0, 9]
    assert len(fake.fits) <= 1, "at most the trial of the dead process was left"
    assert facts(outcome) == facts(whole)
