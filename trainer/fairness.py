"""Segments of a judged run: metrics and reliability for each, and flag thresholds by group."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from churn_udf.thresholds import GroupThresholds, Thresholds
from trainer.config import TrainConfig
from trainer.data.snapshot import Snapshot
from trainer.data.splits import Splits
from trainer.errors import ConfigError
from trainer.evaluate import (
    Division,
    GroupChoice,
    Rows,
    ThresholdChoice,
    choose_group_thresholds,
    find_segmentation,
    find_segmentations,
    slice_document,
)
from trainer.evaluate.segments import SLICE_FEATURES, Segmentation
from trainer.evaluate.slices import worst_segments
from trainer.fit.config import NO_REWEIGHTING

FloatArray: TypeAlias = npt.NDArray[np.float64]
CUTOFF = "cutoff"
IN_SAMPLE_NOTE = "the calibrator was fitted on these rows"


def check_segments(config: TrainConfig, snapshot: Snapshot, splits: Splits) -> None:
    """Refuse settings that name a segment which the snapshot does not have.

    Raises:
        ConfigError: An unknown slice, or thresholds per group of a profile column.
    """
    find_segmentations(snapshot, splits.train, config.evaluate.slices)
    if config.fit.group_reweighting != NO_REWEIGHTING:
        find_segmentation(snapshot, splits.train, config.fit.group_reweighting)
    _threshold_groups(config, snapshot, splits)


def cutoff_sizes(snapshot: Snapshot, rows: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
    """Return each row's cutoff and how many users that cutoff has, for ``choose_threshold``."""
    dates, counts = np.unique(snapshot.cutoff_dates, return_counts=True)
    cutoffs = snapshot.cutoff_dates[rows]
    return {"cutoffs": cutoffs, "populations": counts[np.searchsorted(dates, cutoffs)]}


def thresholds_by_group(
    config: TrainConfig,
    snapshot: Snapshot,
    splits: Splits,
    valid_probabilities: FloatArray,
    choice: ThresholdChoice,
) -> tuple[GroupThresholds, GroupChoice] | None:
    """Choose a flag threshold per group on validation rows; None where none is asked for.

    Args:
        config: ``thresholds.per_group`` and ``thresholds.group_rule``.
        snapshot: The rows.
        splits: Its splits.
        valid_probabilities: (V,) calibrated, of the model that will score.
        choice: The threshold for everybody.

    Returns:
        What the bundle stores, and what it achieves on the validation rows.

    Raises:
        ConfigError: The groups cannot be told from a row's features.
    """
    groups = _threshold_groups(config, snapshot, splits)
    if groups is None:
        return None
    assert groups.bands is not None
    found = choose_group_thresholds(
        snapshot.labels[splits.valid],
        valid_probabilities,
        groups.segment_N[splits.valid],
        groups.names,
        choice,
        config.thresholds.group_rule,
        config.thresholds.costs,
    )
    stored = GroupThresholds(
        slice=groups.name, bands=groups.bands, flag_thresholds=found.thresholds
    )
    return stored, found


def judge_segments(
    config: TrainConfig,
    snapshot: Snapshot,
    splits: Splits,
    probabilities: Mapping[str, FloatArray],
    thresholds: Thresholds,
) -> dict[str, Any]:
    """Measure every segment of the test rows, and reliability at every judged cutoff.

    Args:
        config: ``evaluate.slices`` and how intervals are made.
        snapshot: The rows.
        splits: Its splits.
        probabilities: {"valid" | "test": (N,) calibrated}, of the model that will score.
        thresholds: What the bundle stores; decides who is flagged.

    Returns:
        JSON-ready ``slices`` (``slice_document`` of the test rows, with ``worst``) and
        ``reliability``: {"valid" | "test": {"note", "all", "cutoffs"}}, whose cutoffs are
        segments of ``slice_document``.

    Raises:
        ConfigError: There is no such slice.
    """
    shared: dict[str, Any] = {
        "num_samples": config.evaluate.num_bootstrap,
        "seed": config.fit.seed,
        "confidence": config.evaluate.confidence,
        "min_users": config.evaluate.min_slice_users,
    }
    divisions = [
        Division(one.name, one.source, one.names, one.segment_N[splits.test])
        for one in find_segmentations(snapshot, splits.train, config.evaluate.slices)
    ]
    reliability = {}
    slices: dict[str, Any] = {}
    for name, values in probabilities.items():
        picked = getattr(splits, name)
        rows = Rows(
            snapshot.labels[picked],
            values,
            thresholds.flags_of(values, snapshot.feature_matrix[picked], snapshot.feature_names),
            np.asarray(snapshot.user_ids(picked)),
        )
        dates, cutoff_N = np.unique(snapshot.cutoff_dates[picked], return_inverse=True)
        cutoffs = Division(CUTOFF, "cutoff", [str(date) for date in dates], cutoff_N)
        found = slice_document(rows, [cutoffs, *(divisions if name == "test" else [])], **shared)
        reliability[name] = {
            "note": IN_SAMPLE_NOTE if name == "valid" else None,
            "all": found["all"],
            "cutoffs": found["by"].pop(CUTOFF)["segments"],
        }
        if name == "test":
            slices = {**found, "worst": worst_segments(found)}
    return {"slices": slices, "reliability": reliability}


def group_facts(found: tuple[GroupThresholds, GroupChoice] | None) -> dict[str, Any] | None:
    """Return what ``metrics.json`` says of thresholds by group."""
    if found is None:
        return None
    stored, choice = found
    return {
        "slice": stored.slice,
        "feature": stored.bands.feature,
        **dataclasses.asdict(choice),
    }


def _threshold_groups(
    config: TrainConfig, snapshot: Snapshot, splits: Splits
) -> Segmentation | None:
    """Return the groups that get a threshold each."""
    name = config.thresholds.per_group
    if name is None:
        return None
    groups = find_segmentation(snapshot, splits.train, name)
    if groups.bands is None:
        raise ConfigError(
            f"thresholds.per_group is {name!r}, a profile column, which scoring does not see: a "
            f"score follows from text and features alone; allowed: {', '.join(SLICE_FEATURES)} or "
            "a feature. Use fit.group_reweighting for groups of a profile column"
        )
    return groups
