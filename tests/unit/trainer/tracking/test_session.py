"""The interface behind the trackers: refusals, failures, names, and no influence on the run."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from training_example import Trained, quiet_workspace, tiny_config

from trainer import pipeline
from trainer.config import load_config
from trainer.errors import ConfigError, TrainingDivergedError
from trainer.pipeline import fit_step, train_snapshot
from trainer.progress import Progress
from trainer.runs import run_id_of
from trainer.tracking import TrackedRun, TrackingConfig, require_trackers, session, track_run
from trainer.tracking.config import TRACKERS
from trainer.tracking.session import flat_numbers, flat_settings


class Recorder:
    """A tracker that keeps what it is told, and fails where it is asked to."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.calls: list[tuple[str, Any]] = []

    def _note(self, name: str, value: Any) -> None:
        self.calls.append((name, value))
        if name == self.broken:
            raise OSError("disk full")

    def start(self, facts: Mapping[str, str], params: Mapping[str, Any]) -> None:
        self._note("start", (dict(facts), dict(params)))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._note("log", (dict(metrics), step))

    def artifact(self, path: Path) -> None:
        self._note("artifact", path.name)

    def end(self, status: str) -> None:
        self._note("end", status)

    def named(self, name: str) -> list[Any]:
        """What it was told by one call."""
        return [value for call, value in self.calls if call == name]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Stands in for MLflow."""
    made = Recorder()
    monkeypatch.setattr(session, "_make_tracker", lambda name, config: made)
    return made


TRACKED: dict[str, Any] = {"tracking__trackers": ["mlflow"]}


@pytest.mark.parametrize("name", TRACKERS)
def test_missing_package_names_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "torch.utils.tensorboard" if name == "tensorboard" else name
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"pip install 'warehouse-churn\[{name}\]'"):
        require_trackers(TrackingConfig(trackers=(name,)))


def test_missing_package_is_found_before_a_run_is_begun(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    workspace = quiet_workspace(tmp_path / "new")
    with pytest.raises(ConfigError, match=r"warehouse-churn\[mlflow\]"):
        train_snapshot(trained.snapshot, tiny_config(**TRACKED), workspace)
    assert not workspace.runs_dir.exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"tracking.trackers": ["comet"]}, "allowed: each at most once of tensorboard, wandb"),
        ({"tracking.trackers": ["wandb", "wandb"]}, "at most once"),
        ({"tracking.wandb_mode": "maybe"}, "allowed: offline, online"),
        ({"tracking.project": " "}, "tracking.project is empty"),
    ],
)
def test_bad_settings_are_named(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=overrides)


def test_nothing_is_tracked_unless_told_to_and_wandb_stays_offline() -> None:
    config = load_config().tracking
    assert config.trackers == ()
    assert config.wandb_mode == "offline"
    assert config.mlflow_uri is None


def test_tracking_does_not_change_the_run_id() -> None:
    overrides = {"tracking.trackers": "mlflow,wandb", "tracking.project": "p"}
    assert run_id_of("s", load_config(), "v") == run_id_of(
        "s", load_config(overrides=overrides), "v"
    )


@pytest.mark.parametrize("broken", ["start", "log", "artifact", "end"])
def test_failing_tracker_is_warned_about_once(broken: str) -> None:
    stream = io.StringIO()
    failing, sound = Recorder(broken), Recorder()
    tracked = TrackedRun({"wandb": failing, "mlflow": sound}, Progress(stream))
    tracked.start({"run_id": "r"}, {})
    for _ in range(3):
        tracked.on_log({"stage": "fine-tune", "epoch": 1.0, "train_loss": 0.5})
    tracked.results({"test": {}}, Path("a.html"), Path("b.md"))
    tracked.end("finished")
    assert stream.getvalue().count("\n") == 1
    assert "warning: the tracker wandb failed (OSError: disk full)" in stream.getvalue()
    assert [name for name, _ in sound.calls] == [
        *("start", "log", "log", "log", "log", "artifact", "artifact", "end")
    ]
    if broken == "start":
        assert [name for name, _ in failing.calls] == ["start"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_exception_ends_the_run_as_failed(recorder: Recorder, error: type[BaseException]) -> None:
    config = TrackingConfig(trackers=("mlflow",))
    progress = Progress(io.StringIO())
    with pytest.raises(error), track_run(config, facts={}, params={}, progress=progress):
        raise error
    assert recorder.named("end") == ["failed"]


def test_names_of_settings_and_numbers() -> None:
    assert flat_settings({"fit": {"a": 1, "b": None}, "c": {"d": ("x", "y")}}) == {
        **{"fit.a": 1, "fit.b": None, "c.d": "x, y"}
    }
    tree = {"a": {"value": 1, "low": None, "high": float("nan")}, "b": "text", "value": 2.0}
    assert flat_numbers(tree) == {"a": 1.0, "value": 2.0}


def test_whole_run_is_tracked_and_its_model_is_the_same(
    trained: Trained, recorder: Recorder
) -> None:
    outcome = train_snapshot(
        trained.snapshot, tiny_config(**TRACKED), trained.workspace, force=True
    )
    assert outcome.bundle_id == trained.outcome.bundle_id
    assert outcome.run_id == trained.outcome.run_id
    ((facts, params),) = recorder.named("start")
    assert facts["run_id"] == outcome.run_id
    assert params["fit.hidden_size"] == 16
    assert not [name for name in params if name.startswith("tracking.")]
    history = [
        json.loads(line)
        for line in (trained.workspace.runs_dir / outcome.run_id / "history.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    ]
    *rows, (numbers, last) = recorder.named("log")
    assert [step for _, step in rows] == list(range(len(history)))
    assert last == len(history)
    for (logged, _), row in zip(rows, history, strict=True):
        stage = row.pop("stage")
        assert logged == {f"{stage}/{name}": value for name, value in row.items()}
    auroc = outcome.metrics["test"][outcome.metrics["model"]]["auroc"]
    prefix = f"test/{outcome.metrics['model']}/auroc"
    assert numbers[prefix] == auroc["value"]
    assert numbers[f"{prefix}_low"] == auroc["low"]
    assert recorder.named("artifact") == ["report.html", "MODEL_CARD.md"]
    assert recorder.named("end") == ["finished"]


def test_skipped_run_is_not_tracked(trained: Trained, recorder: Recorder) -> None:
    train_snapshot(trained.snapshot, tiny_config(**TRACKED), trained.workspace)
    assert recorder.calls == []


def test_run_that_was_trained_already_logs_its_history(
    trained: Trained, recorder: Recorder
) -> None:
    rows: list[Mapping[str, Any]] = []
    run = fit_step(trained.snapshot, tiny_config(), trained.workspace, on_log=rows.append)
    assert rows == run.read_json("fit.json")["history"]


def test_broken_training_is_failed_in_the_tracker(
    trained: Trained, tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: Any, **__: Any) -> None:
        raise TrainingDivergedError("nan")

    monkeypatch.setattr(pipeline, "evaluate_step", diverge)
    with pytest.raises(TrainingDivergedError):
        train_snapshot(trained.snapshot, tiny_config(**TRACKED), trained.workspace, force=True)
    assert recorder.named("end") == ["failed"]
