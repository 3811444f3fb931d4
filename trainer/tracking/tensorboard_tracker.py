"""TensorBoard: event files in a folder per run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.tracking.config import TrackingConfig


class TensorBoardTracker:
    """Writes ``<directory>/tensorboard/<run_id>``; read it with ``tensorboard --logdir``.

    Args:
        config: Names the folder.

    Raises:
        ImportError: The package is missing.
    """

    def __init__(self, config: TrackingConfig) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._make_writer = SummaryWriter
        self._root = Path(config.directory) / "tensorboard"

    def start(self, facts: Mapping[str, str], params: Mapping[str, Any]) -> None:
        """Open the event file; what an earlier process of the run logged is replaced."""
        self._folder = self._root / facts["run_id"]
        self._writer = self._make_writer(str(self._folder), purge_step=0)
        for title, table in (("facts", facts), ("params", params)):
            rows = "\n".join(f"| {name} | {value} |" for name, value in table.items())
            self._writer.add_text(title, f"| name | value |\n|---|---|\n{rows}")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add one scalar for each metric."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def artifact(self, path: Path) -> None:
        """Copy the file beside the events; Markdown is shown as text too."""
        shutil.copy(path, self._folder / path.name)
        if path.suffix == ".md":
            self._writer.add_text(path.stem.lower(), path.read_text(encoding="utf-8"))

    def end(self, status: str) -> None:
        """Note the status and close the file."""
        self._writer.add_text("status", status)
        self._writer.close()
