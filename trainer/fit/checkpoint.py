"""Checkpoints of a training run: written whole or not at all, read without unpickling code."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

CHECKPOINT_FILE = "state.pt"


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait until the block is done: torch swallows one that hits it while it saves."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not callable(signal.getsignal(signal.SIGINT)):  # ignored stays ignored
        yield
        return
    caught: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if caught:
        raise KeyboardInterrupt


class Checkpointer:
    """Keeps the newest state of a run in one file.

    Args:
        directory: Where the file lies; made when missing.
        least_seconds: Least time between two ``save_if_due`` that write.
    """

    def __init__(self, directory: Path, least_seconds: float) -> None:
        self.directory = directory
        self.least_seconds = least_seconds
        self._saved_at = time.monotonic()

    @property
    def path(self) -> Path:
        """The state file."""
        return self.directory / CHECKPOINT_FILE

    def load(self) -> dict[str, Any] | None:
        """Return the newest state, or None when there is none or it cannot be read."""
        if not self.path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception:  # a damaged checkpoint costs time, never the run
            return None
        return state

    def is_due(self) -> bool:
        """Return whether enough time has passed since the last save."""
        return time.monotonic() - self._saved_at >= self.least_seconds

    def save(self, state: dict[str, Any]) -> None:
        """Write a state: to a temporary name, flushed to disk, then renamed."""
        self.directory.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        with _interrupts_held(), temporary.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self.path)
        self._saved_at = time.monotonic()

    def clear(self) -> None:
        """Remove the state of a finished run."""
        self.path.unlink(missing_ok=True)
