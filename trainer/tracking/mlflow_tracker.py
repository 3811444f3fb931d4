"""MLflow: a local file store unless a server is named."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.tracking.config import TrackingConfig


class MlflowTracker:
    """Writes ``<directory>/mlflow``, or to ``tracking.mlflow_uri``.

    Args:
        config: Names experiment, folder and server.

    Raises:
        ImportError: The package is missing.
    """

    def __init__(self, config: TrackingConfig) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read at import
        from mlflow import MlflowClient, entities

        self._client_class, self._entities = MlflowClient, entities
        self._config = config

    def start(self, facts: Mapping[str, str], params: Mapping[str, Any]) -> None:
        """Begin a run named by its run id, in the experiment named by the project."""
        uri = self._config.mlflow_uri
        if uri is None:
            # MLflow 3 asks for this assent to its file store, which needs no database package.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (Path(self._config.directory) / "mlflow").resolve().as_uri()
        self._client = self._client_class(tracking_uri=uri)
        found = self._client.get_experiment_by_name(self._config.project)
        experiment_id = (
            found.experiment_id if found else self._client.create_experiment(self._config.project)
        )
        run = self._client.create_run(experiment_id, run_name=facts["run_id"], tags=dict(facts))
        self._run_id = run.info.run_id
        listed = [self._entities.Param(name, str(value)) for name, value in params.items()]
        for begin in range(0, len(listed), 100):  # a request takes a hundred
            self._client.log_batch(self._run_id, params=listed[begin : begin + 100])

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the metrics at a step."""
        now = int(1_000 * time.time())
        listed = [self._entities.Metric(*item, now, step) for item in metrics.items()]
        for begin in range(0, len(listed), 1_000):  # a request takes a thousand
            self._client.log_batch(self._run_id, metrics=listed[begin : begin + 1_000])

    def artifact(self, path: Path) -> None:
        """Copy the file to the run's artifacts."""
        self._client.log_artifact(self._run_id, str(path))

    def end(self, status: str) -> None:
        """End the run as FINISHED or FAILED."""
        self._client.set_terminated(self._run_id, status=status.upper())
