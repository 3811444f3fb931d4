"""Experiment trackers: TensorBoard, Weights & Biases and MLflow behind one small interface."""

from __future__ import annotations

from trainer.tracking.config import TrackingConfig
from trainer.tracking.session import TrackedRun, Tracker, require_trackers, track_run

__all__ = ["TrackedRun", "Tracker", "TrackingConfig", "require_trackers", "track_run"]
