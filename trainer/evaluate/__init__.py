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
from trainer.evaluate.group_thresholds import GroupChoice, choose_group_thresholds
from trainer.evaluate.metrics import METRIC_NAMES, classification_metrics
from trainer.evaluate.segments import find_segmentation, find_segmentations
from trainer.evaluate.slices import Division, Rows, slice_document
from trainer.evaluate.tabular import BaselineRows
from trainer.evaluate.thresholds import ThresholdChoice, choose_threshold, tier_bounds

__all__ = [
    "BASELINE_TITLES",
    "METRIC_NAMES",
    "BaselineResult",
    "BaselineRows",
    "Division",
    "GroupChoice",
    "Interval",
    "RfmColumns",
    "Rows",
    "ThresholdChoice",
    "best_model",
    "bootstrap_intervals",
    "choose_group_thresholds",
    "choose_threshold",
    "classification_metrics",
    "find_segmentation",
    "find_segmentations",
    "fit_baselines",
    "fit_calibrator",
    "paired_difference",
    "slice_document",
    "tier_bounds",
]
