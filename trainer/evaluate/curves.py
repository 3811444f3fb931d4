"""Points of the curves that a report draws, thinned to a few hundred each.

All curves are read over groups of equal probability, so they do not depend on the order of rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.evaluate.arrays import (
    FloatArray,
    IntArray,
    as_labels,
    as_probabilities,
    group_indices,
)
from trainer.evaluate.metrics import NUM_CALIBRATION_BINS, rank_rows

MAX_POINTS = 300
_WILSON_Z = 1.959963984540054  # 95 %


class Curve(NamedTuple):
    """Points of a line, in drawing order."""

    x: FloatArray
    y: FloatArray


class CalibrationBin(NamedTuple):
    """Rows of similar probability: what was said and what happened."""

    mean_probability: float
    churn_rate: float
    low: float
    high: float
    num_rows: int


class Confusion(NamedTuple):
    """Counts at a threshold."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int


def roc_curve(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> Curve | None:
    """Return false positive rate against true positive rate; None with one class only."""
    flagged, hits = _cumulated(labels, probabilities)
    num_churned, num_stayed = hits[-1], flagged[-1] - hits[-1]
    if num_churned == 0 or num_stayed == 0:
        return None
    return thin(Curve((flagged - hits) / num_stayed, hits / num_churned))


def precision_recall_curve(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> Curve | None:
    """Return recall against precision, from the first row flagged on; None with no churner."""
    flagged, hits = _cumulated(labels, probabilities)
    if hits[-1] == 0:
        return None
    recall, precision = hits[1:] / hits[-1], hits[1:] / flagged[1:]
    return thin(Curve(np.append(0.0, recall), np.append(precision[0], precision)))


def gain_curve(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> Curve | None:
    """Return share of customers against share of churners found; None with no churner."""
    flagged, hits = _cumulated(labels, probabilities)
    if hits[-1] == 0:
        return None
    return thin(Curve(flagged / flagged[-1], hits / hits[-1]))


def lift_curve(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, min_share: float = 0.01
) -> Curve | None:
    """Return share of customers against lift, from `min_share` on; None with no churner.

    Ties at a share's edge count in part, as in `lift_at_10pct`.
    """
    flagged, hits = _cumulated(labels, probabilities)
    if hits[-1] == 0:
        return None
    shares = np.linspace(min_share, 1.0, 100)
    found = np.interp(shares, flagged / flagged[-1], hits / hits[-1])
    return Curve(shares, found / shares)


def calibration_bins(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    num_bins: int = NUM_CALIBRATION_BINS,
    users: npt.ArrayLike | None = None,
) -> list[CalibrationBin]:
    """Return the non-empty bins of equal mass, with 95 % Wilson intervals of the churn rate.

    The bins are those of expected_calibration_error: ties share a bin.

    Args:
        labels: (N,) 0/1.
        probabilities: (N,) in [0, 1].
        num_bins: Bins to aim at.
        users: (N,) ids: the intervals then count the users of a bin and not its rows, which
            tell less when they are of the same users. None takes every row as its own user.
    """
    ranked = rank_rows(labels, probabilities)
    num_rows = ranked.labels_N.size
    users_N = group_indices(users, num_rows)[0][ranked.order_N]
    sizes = np.diff(np.append(ranked.starts_G, num_rows))
    middle = (np.cumsum(sizes) - 0.5 * sizes) / num_rows
    edges = np.arange(1, num_bins) / num_bins
    bin_N = np.repeat(np.searchsorted(edges, middle, side="right"), sizes)
    probability_N = np.repeat(ranked.probabilities_G, sizes)
    bins = []
    for number in np.unique(bin_N):
        inside = bin_N == number
        rate = float(ranked.labels_N[inside].mean())
        low, high = wilson_interval(rate, np.unique(users_N[inside]).size)
        mean = float(probability_N[inside].mean())
        bins.append(CalibrationBin(mean, rate, low, high, int(inside.sum())))
    return bins[::-1]


def wilson_interval(rate: float, num_rows: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share observed on `num_rows` >= 1 rows."""
    squared = _WILSON_Z**2
    centre = (rate + squared / (2.0 * num_rows)) / (1.0 + squared / num_rows)
    spread = rate * (1.0 - rate) / num_rows + squared / (4.0 * num_rows**2)
    half = _WILSON_Z * float(np.sqrt(spread)) / (1.0 + squared / num_rows)
    return max(0.0, centre - half), min(1.0, centre + half)


def probability_histogram(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, num_bins: int = 20
) -> tuple[IntArray, IntArray]:
    """Count stayers and churners per probability bin of equal width over [0, 1].

    Returns:
        (num_bins,) stayed, (num_bins,) churned.
    """
    labels_N = as_labels(labels)
    probabilities_N = as_probabilities(probabilities, labels_N.size)
    bins_N = np.minimum((probabilities_N * num_bins).astype(np.int64), num_bins - 1)
    churned = np.bincount(bins_N[labels_N == 1.0], minlength=num_bins)
    stayed = np.bincount(bins_N[labels_N == 0.0], minlength=num_bins)
    return stayed.astype(np.int64), churned.astype(np.int64)


def confusion(labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float) -> Confusion:
    """Count right and wrong flags when flagging probability >= threshold."""
    churned = as_labels(labels) == 1.0
    flagged = as_probabilities(probabilities, churned.size) >= threshold
    return Confusion(
        int((flagged & churned).sum()),
        int((flagged & ~churned).sum()),
        int((~flagged & churned).sum()),
        int((~flagged & ~churned).sum()),
    )


def thin(curve: Curve, max_points: int = MAX_POINTS) -> Curve:
    """Keep at most `max_points` points, evenly spaced along the drawn line, both ends included."""
    if curve.x.size <= max_points:
        return curve
    steps = np.hypot(np.diff(curve.x), np.diff(curve.y))
    travelled = np.concatenate([[0.0], np.cumsum(steps)])
    marks = np.linspace(0.0, travelled[-1], max_points)
    kept = np.unique(np.searchsorted(travelled, marks, side="left"))
    kept[-1] = curve.x.size - 1
    return Curve(curve.x[kept], curve.y[kept])


def _cumulated(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Rows flagged and churners among them, per group of ties from the top, starting at 0."""
    ranked = rank_rows(labels, probabilities)
    ends = np.append(ranked.starts_G[1:], ranked.labels_N.size)
    hits = np.cumsum(ranked.labels_N)[ends - 1]
    return np.append(0.0, ends.astype(np.float64)), np.append(0.0, hits)
