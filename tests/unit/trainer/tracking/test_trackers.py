"""Each tracker writes what its own reader finds again; none reaches for the network."""

from __future__ import annotations

import importlib.util
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trainer.progress import Progress
from trainer.tracking import TrackingConfig, track_run

FACTS = {"run_id": "abc123", "snapshot_id": "snap"}
PARAMS = {"fit": {"epochs": 2, "encoder_learning_rate": None}, "evaluate": {"calibration": ["a"]}}
ROWS = (
    {"stage": "numeric", "epoch": 1.0, "train_loss": 0.7},
    {"stage": "fine-tune", "epoch": 0.5, "train_loss": 0.6, "valid_loss": 0.5},
)
METRICS = {"model": "bert", "test": {"bert": {"auroc": {"value": 0.8, "low": 0.7, "high": 0.9}}}}
LOGGED = {
    ("numeric/train_loss", 0): 0.7,
    ("fine-tune/valid_loss", 1): 0.5,
    ("test/bert/auroc", 2): 0.8,
    ("test/bert/auroc_low", 2): 0.7,
    ("test/bert/auroc_high", 2): 0.9,
}
Logger = Callable[..., None]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections may stay on this machine."""
    connect = socket.socket.connect

    def guarded(this: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"
        assert host in ("localhost", "127.0.0.1", "::1"), f"connects to {address}"
        connect(this, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.delenv("WANDB_MODE", raising=False)


@pytest.fixture
def log_run(tmp_path: Path) -> Logger:
    """Return a function that tracks a run of two rows with the named tracker."""
    (tmp_path / "report.html").write_text("<p>report</p>", encoding="utf-8")
    (tmp_path / "MODEL_CARD.md").write_text("# Card", encoding="utf-8")

    def log(tracker: str, *, fails: bool = False) -> None:
        package = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}[tracker]
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
        config = TrackingConfig(trackers=(tracker,), directory=str(tmp_path / "tracking"))
        progress = Progress(FailingStream(), quiet=True)
        with track_run(config, facts=FACTS, params=PARAMS, progress=progress) as tracked:
            for row in ROWS:
                tracked.on_log(row)
            if fails:
                raise RuntimeError("training broke")
            tracked.results(METRICS, tmp_path / "report.html", tmp_path / "MODEL_CARD.md")

    return log


class FailingStream:
    """Nothing may be warned about here."""

    def write(self, text: str) -> None:
        raise AssertionError(text)

    def flush(self) -> None:
        """Do nothing."""


def test_tensorboard_events_are_read_back(log_run: Logger, tmp_path: Path) -> None:
    log_run("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "tracking" / "tensorboard" / "abc123"
    events = EventAccumulator(str(folder)).Reload()
    found = {
        (name, point.step): pytest.approx(point.value)
        for name in events.Tags()["scalars"]
        for point in events.Scalars(name)
    }
    assert {key: found[key] for key in LOGGED} == LOGGED
    texts = {
        name.removesuffix("/text_summary"): events.Tensors(name)[0].tensor_proto.string_val[0]
        for name in events.Tags()["tensors"]
    }
    assert b"| fit.epochs | 2 |" in texts["params"]
    assert b"| snapshot_id | snap |" in texts["facts"]
    assert texts["model_card"] == b"# Card"
    assert texts["status"] == b"finished"
    assert (folder / "report.html").read_text(encoding="utf-8") == "<p>report</p>"


def test_tensorboard_shows_a_repeated_run_once(log_run: Logger, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="training broke"):
        log_run("tensorboard", fails=True)
    log_run("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tracking" / "tensorboard" / "abc123")).Reload()
    assert [point.step for point in events.Scalars("fine-tune/valid_loss")] == [1]


@pytest.mark.parametrize(("fails", "status"), [(False, "FINISHED"), (True, "FAILED")])
def test_mlflow_store_is_read_back(
    log_run: Logger, tmp_path: Path, fails: bool, status: str
) -> None:
    if fails:
        with pytest.raises(RuntimeError, match="training broke"):
            log_run("mlflow", fails=True)
    else:
        log_run("mlflow")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / "tracking" / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("churn")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "abc123"
    assert run.info.status == status
    assert run.data.tags["snapshot_id"] == "snap"
    assert run.data.params["fit.epochs"] == "2"
    found = {
        (name, point.step): point.value
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
    }
    expected = {key: value for key, value in LOGGED.items() if not fails or key[1] < 2}
    assert {key: value for key, value in found.items() if key in LOGGED} == expected
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert artifacts == (set() if fails else {"report.html", "MODEL_CARD.md"})


@pytest.mark.parametrize(("fails", "exit_code"), [(False, 0), (True, 1)])
def test_wandb_offline_run_is_read_back(
    log_run: Logger, tmp_path: Path, fails: bool, exit_code: int
) -> None:
    if fails:
        with pytest.raises(RuntimeError, match="training broke"):
            log_run("wandb", fails=True)
    else:
        log_run("wandb")
    import wandb

    wandb.teardown()  # its service writes the file's end; elsewhere the end of the process waits
    (folder,) = (tmp_path / "tracking" / "wandb").glob("offline-run-*")
    (file,) = folder.glob("*.wandb")
    found: dict[tuple[str, int], float] = {}
    config: dict[str, str] = {}
    exits, names = [], []
    for record in wandb_records(file):
        if record.HasField("run"):
            names.append((record.run.project, record.run.display_name))
            config.update((item.key, item.value_json) for item in record.run.config.update)
        if record.HasField("history"):
            items = {
                "".join(item.nested_key) or item.key: item.value_json
                for item in record.history.item
            }
            step = int(items["_step"])
            found.update(
                {
                    (name, step): float(text)
                    for name, text in items.items()
                    if (name, step) in LOGGED
                }
            )
        if record.HasField("exit"):
            exits.append(record.exit.exit_code)
    assert names[0] == ("churn", "abc123")
    assert config["fit.epochs"] == "2"
    assert config["snapshot_id"] == '"snap"'
    assert found == {key: value for key, value in LOGGED.items() if not fails or key[1] < 2}
    assert exits == [exit_code]
    for name in ("report.html", "MODEL_CARD.md"):
        assert (folder / "files" / name).is_file() != fails


def wandb_records(file: Path) -> Iterator[Any]:
    """Yield the records of an offline run: protobuf in LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, message = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while position < len(data):
        left = 32_768 - position % 32_768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + 7])
        message += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole message, or the last part of one
            record = Record()
            record.ParseFromString(message)
            yield record
            message = b""
