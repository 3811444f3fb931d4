"""A tiny model, trained once per test session; tests get copies of its folders."""

from __future__ import annotations

import atexit
import dataclasses
import io
import shutil
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

from trainer.config import TrainConfig, load_config
from trainer.data.snapshot import Snapshot
from trainer.data.synthetic import synthetic_snapshot
from trainer.pipeline import RunOutcome, Workspace, train_snapshot
from trainer.progress import Progress

TINY_SETTINGS = {
    "fit.hidden_size": 16,
    "fit.num_layers": 1,
    "fit.epochs": 1,
    "fit.pretrain_epochs": 1,
    "fit.numeric_epochs": 40,
    "fit.numeric_learning_rate": 0.01,
    "fit.max_pretrain_examples": 64,
    "fit.max_epoch_examples": 128,
    "fit.min_word_count": 2,
    "fit.device": "cpu",
    "evaluate.num_bootstrap": 20,
    "evaluate.baselines": "base_rate,recency",
    "ensemble.kinds": "bert",
    "ensemble.members": "bert",
    "precision.modes": "fp32",
    "gate.unchecked": "allow",
}
TINY_FLAGS = [part for key, value in TINY_SETTINGS.items() for part in ("--set", f"{key}={value}")]


def tiny_config(**overrides: object) -> TrainConfig:
    """Settings under which training takes seconds; keys use ``__`` for the dot."""
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_config(overrides={**TINY_SETTINGS, **changes})


def quiet_workspace(root: Path) -> Workspace:
    """The folders of a test."""
    return Workspace(
        snapshots_dir=root / "snapshots",
        runs_dir=root / "runs",
        models_dir=root / "models",
        progress=Progress(io.StringIO()),
    )


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finished workspace."""

    root: Path
    workspace: Workspace
    outcome: RunOutcome

    @property
    def snapshot(self) -> Snapshot:
        """What it was trained on."""
        return Snapshot.open(self.workspace.snapshots_dir / self.outcome.snapshot_id)


def trained_copy(root: Path) -> Trained:
    """Copy the session's trained workspace to a folder of the test."""
    source, outcome = _train_once()
    shutil.copytree(source, root, dirs_exist_ok=True)
    return Trained(root, quiet_workspace(root), outcome)


@lru_cache(maxsize=1)
def _train_once() -> tuple[Path, RunOutcome]:
    """Train, and keep the folders for the process's life."""
    root = Path(mkdtemp(prefix="churn-trained-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    workspace = quiet_workspace(root)
    snapshot = synthetic_snapshot(workspace.snapshots_dir, num_users=200)
    return root, train_snapshot(snapshot, tiny_config(), workspace)
