"""Metrics by segment: for whom the model works, and for whom it does not."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.evaluate.arrays import as_labels, as_probabilities
from trainer.evaluate.metrics import classification_metrics


class SliceMetrics(NamedTuple):
    """One segment's size and metrics."""

    segment: str
    num_rows: int
    mean_probability: float
    metrics: dict[str, float]


def slice_metrics(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    segments: npt.ArrayLike,
    threshold: float,
    min_rows: int = 50,
) -> list[SliceMetrics]:
    """Compute the metrics of each segment, largest segment first.

    Args:
        labels: (N,) 0/1.
        probabilities: (N,) in [0, 1].
        segments: (N,) a name per row.
        threshold: Flagging threshold.
        min_rows: Smaller segments are left out: their metrics would be noise.

    Raises:
        ValueError: If the arrays do not fit together.
    """
    labels_N = as_labels(labels)
    probabilities_N = as_probabilities(probabilities, labels_N.size)
    segments_N = np.asarray(segments).astype(str)
    if segments_N.shape != labels_N.shape:
        raise ValueError(f"segments must have shape {labels_N.shape}; got {segments_N.shape}")
    found = []
    for segment in np.unique(segments_N):
        inside = segments_N == segment
        num_rows = int(inside.sum())
        if num_rows >= min_rows:
            values = classification_metrics(labels_N[inside], probabilities_N[inside], threshold)
            mean = float(probabilities_N[inside].mean())
            found.append(SliceMetrics(str(segment), num_rows, mean, values))
    return sorted(found, key=lambda one: (-one.num_rows, one.segment))


def quantile_segments(values: npt.ArrayLike, num_segments: int = 4) -> list[str]:
    """Name the quantile segment of each value, for slicing by a numeric feature.

    Args:
        values: (N,) numbers, NaN = unknown.
        num_segments: How many segments; equal quantiles are merged.

    Returns:
        (N,) names such as "3 to 7" and "unknown".
    """
    numbers = np.asarray(values, dtype=np.float64)
    known = np.isfinite(numbers)
    if not known.any():
        return ["unknown"] * numbers.size
    edges = np.unique(np.quantile(numbers[known], np.linspace(0.0, 1.0, num_segments + 1)))
    inner = edges[1:-1]
    indices = np.searchsorted(inner, np.where(known, numbers, edges[0]), side="right")
    ends = [edges[0], *inner, edges[-1]]
    names = [
        f"{low:g} to {high:g}" if low < high else f"{low:g}"
        for low, high in itertools.pairwise(ends)
    ]
    return [names[index] if ok else "unknown" for index, ok in zip(indices, known, strict=True)]
