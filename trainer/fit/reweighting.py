"""Weights of training examples that make the groups of a slice count alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainer.data.snapshot import Snapshot
from trainer.data.splits import Splits
from trainer.evaluate.segments import find_segmentation
from trainer.fit.config import KAMIRAN_CALDERS, NO_REWEIGHTING, FitConfig

MAX_WEIGHT = 10.0
"""A group of a handful of rows must not drive the training."""


def example_weights(
    snapshot: Snapshot, splits: Splits, config: FitConfig
) -> npt.NDArray[np.float64]:
    """Return the weight of each row of the snapshot in the loss.

    Args:
        snapshot: The rows.
        splits: Weights are counted on the training rows alone.
        config: ``group_reweighting`` names the slice, ``group_reweighting_rule`` the rule.

    Returns:
        (N,) weights with a mean of 1 over the training rows; 1 on all other rows, and everywhere
        where no slice is named.

    Raises:
        ConfigError: There is no such feature or profile column.
    """
    weights_N = np.ones(snapshot.num_rows)
    if config.group_reweighting == NO_REWEIGHTING:
        return weights_N
    segmentation = find_segmentation(snapshot, splits.train, config.group_reweighting)
    weights_N[splits.train] = group_weights(
        segmentation.segment_N[splits.train],
        snapshot.labels[splits.train],
        config.group_reweighting_rule,
    )
    return weights_N


def group_weights(
    groups_N: npt.NDArray[np.int64], labels_N: npt.NDArray[np.float64], rule: str
) -> npt.NDArray[np.float64]:
    """Return the weights of training rows.

    - equal_size: every group has the same total weight, so that a small group is not learned from
      in passing. Churn rates inside the groups stay what they are.
    - kamiran_calders: P(group) P(label) / P(group, label), which makes group and label independent
      in what is learned from (Kamiran and Calders 2012, reweighing). It narrows a gap in how often
      groups are flagged, at the price of probabilities that are off inside the groups where their
      churn rates really differ.

    Args:
        groups_N: (N,) number of each row's group.
        labels_N: (N,) 0/1.
        rule: ``equal_size`` or ``kamiran_calders``.

    Returns:
        (N,) with mean 1; no row counts more than ``MAX_WEIGHT`` before that.
    """
    _, group_N, sizes_G = np.unique(groups_N, return_inverse=True, return_counts=True)
    if rule == KAMIRAN_CALDERS:
        churned_N = labels_N.astype(np.int64)
        counts_G2 = np.zeros((sizes_G.size, 2))
        np.add.at(counts_G2, (group_N, churned_N), 1.0)
        expected_G2 = sizes_G[:, None] * np.bincount(churned_N, minlength=2) / labels_N.size
        weights_N = (expected_G2 / np.maximum(counts_G2, 1.0))[group_N, churned_N]
    else:
        weights_N = (groups_N.size / (sizes_G.size * sizes_G))[group_N]
    weights_N = np.minimum(weights_N, MAX_WEIGHT)
    mean_one: npt.NDArray[np.float64] = weights_N / weights_N.mean()
    return mean_one
