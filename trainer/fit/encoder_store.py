"""Pretrained encoders on disk, shared by fits that differ in their labels only."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file, save_file
from torch import nn

from trainer.data.snapshot import Snapshot
from trainer.fit.config import FitConfig
from trainer.fit.stages import Stage, StageRunner

IntArray = npt.NDArray[np.int64]


class EncoderStore:
    """Keeps what masked-word and contrastive training made of an encoder.

    Args:
        directory: Where the weights lie; made when something is saved.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def load(self, key: str, encoder: nn.Module) -> bool:
        """Put the weights of a key into an encoder; return whether there were any."""
        file = self._file(key)
        if not file.is_file():
            return False
        encoder.load_state_dict(load_file(file))
        return True

    def save(self, key: str, encoder: nn.Module) -> None:
        """Write an encoder's weights under a key, whole or not at all."""
        self.directory.mkdir(parents=True, exist_ok=True)
        partial = self.directory / f".{key}.{os.getpid()}.partial"
        state = {name: value.detach().cpu().clone() for name, value in encoder.state_dict().items()}
        save_file(state, partial)
        partial.replace(self._file(key))

    def _file(self, key: str) -> Path:
        """Return where the weights of a key lie."""
        return self.directory / f"{key}.safetensors"


def encoder_key(snapshot: Snapshot, pretrain_rows: IntArray, config: FitConfig) -> str:
    """Return a hash of all that pretraining depends on: texts read and settings, no label."""
    content = {
        "snapshot_id": snapshot.snapshot_id,
        "rows": hashlib.sha256(pretrain_rows.tobytes()).hexdigest(),
        "config": dataclasses.asdict(config),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def pretrain_once(
    encoder: nn.Module,
    runner: StageRunner,
    stages: Sequence[tuple[int, Callable[[], Stage]]],
    encoders: EncoderStore | None,
    key: str,
) -> None:
    """Run the stages that need no label, or take their result from the store.

    Args:
        encoder: What they train.
        runner: Runs them.
        stages: Place of each in the run, and what makes it.
        encoders: Where the result is looked up and kept; None repeats the stages.
        key: Of ``encoder_key``.

    Raises:
        TrainingDivergedError: The loss is not finite.
    """
    if not stages:
        return
    if encoders is not None and encoders.load(key, encoder):
        return
    done = [runner.run(index, make_stage()) for index, make_stage in stages]
    if encoders is not None and all(done):
        encoders.save(key, encoder)
