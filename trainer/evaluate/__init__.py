"""Evaluation: metrics with intervals, calibration, thresholds and baselines; numpy in and out."""

from __future__ import annotations

from trainer.evaluate.baselines import (
    BASELINE_TITLES,
    BaselineResult,
    RfmColumns,
    fit_baselines,
)
from trainer.evaluate.bootstrap import (
    Interval,
    best_model,
    bootstrap_intervals,
    paired_difference,
)
from trainer.evaluate.calibration import fit_calibrator
from trainer.evaluate.metrics import METRIC_NAMES, classification_metrics
from trainer.evaluate.slices import quantile_segments, slice_metrics
from trainer.evaluate.tabular import BaselineRows
from trainer.evaluate.thresholds import ThresholdChoice, choose_threshold, tier_bounds

__all__ = [
    "BASELINE_TITLES",
    "METRIC_NAMES",
    "BaselineResult",
    "BaselineRows",
    "Interval",
    "RfmColumns",
    "ThresholdChoice",
    "best_model",
    "bootstrap_intervals",
    "choose_threshold",
    "classification_metrics",
    "fit_baselines",
    "fit_calibrator",
    "paired_difference",
    "quantile_segments",
    "slice_metrics",
    "tier_bounds",
]
