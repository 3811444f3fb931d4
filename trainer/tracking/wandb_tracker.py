"""Weights & Biases: offline files unless told otherwise."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.tracking.config import TrackingConfig


class WandbTracker:
    """Writes ``<directory>/wandb``; ``wandb sync`` uploads an offline run later.

    Args:
        config: Names project, folder and mode.

    Raises:
        ImportError: The package is missing.
    """

    def __init__(self, config: TrackingConfig) -> None:
        if config.wandb_mode == "offline":  # reports of its own crashes would leave the building
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        from wandb import Settings, init

        self._settings, self._init = Settings, init
        self._config = config

    def start(self, facts: Mapping[str, str], params: Mapping[str, Any]) -> None:
        """Begin a run named by its run id."""
        directory = Path(self._config.directory)
        directory.mkdir(parents=True, exist_ok=True)  # else it falls back to a temporary folder
        mode: Any = self._config.wandb_mode
        settings = self._settings(
            silent=True, console="off", x_disable_stats=True, disable_git=True, disable_code=True
        )
        self._run = self._init(
            project=self._config.project,
            name=facts["run_id"],
            dir=str(directory),
            mode=mode,
            config={**facts, **params},
            settings=settings,
            reinit="create_new",
        )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the metrics at a step."""
        self._run.log(dict(metrics), step=step)

    def artifact(self, path: Path) -> None:
        """Copy the file into the run's files."""
        copy = Path(self._run.dir) / path.name
        shutil.copy(path, copy)
        self._run.save(str(copy), base_path=self._run.dir, policy="now")

    def end(self, status: str) -> None:
        """Finish the run; any status but ``finished`` is an exit code of 1."""
        self._run.finish(exit_code=0 if status == "finished" else 1)
