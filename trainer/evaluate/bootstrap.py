"""Bootstrap intervals of the metrics, resampling users and not rows.

A user who occurs at several cutoffs is drawn or left out as a whole, as rows of one user are not
independent. All models see the same draws, so differences between them are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.evaluate.arrays import FloatArray, IntArray, as_labels, group_indices
from trainer.evaluate.metrics import (
    LOWER_IS_BETTER,
    METRIC_NAMES,
    classification_metrics,
    rank_rows,
    weighted_metrics,
)

DIFFERENCE_METRICS = ("auroc", "average_precision", "log_loss", "brier_score")

BIASED_METRIC = "expected_calibration_error"
_MAX_CELLS = 2_000_000  # weights held at once: 16 MB a matrix, about ten of them alive


class Interval(NamedTuple):
    """A value with its percentile bootstrap interval."""

    value: float
    low: float
    high: float


def bootstrap_intervals(
    labels: npt.ArrayLike,
    probabilities: Mapping[str, npt.ArrayLike],
    thresholds: Mapping[str, float],
    num_samples: int = 1000,
    seed: int = 0,
    groups: npt.ArrayLike | None = None,
    confidence: float = 0.95,
) -> dict[str, dict[str, Interval]]:
    """Compute every metric of every model with an interval.

    Args:
        labels: (N,) 0/1.
        probabilities: {model: (N,) in [0, 1]}, all on the same rows.
        thresholds: {model: flagging threshold}, for exactly the same models.
        num_samples: Bootstrap samples, >= 1.
        seed: The same seed gives the same intervals.
        groups: (N,) user ids; None takes every row as its own user.
        confidence: Width of the interval, in (0, 1).

    Returns:
        {model: {metric: Interval}}. A metric that is undefined on the data is NaN; bootstrap
        samples in which it is undefined (one class only) are left out of its interval. Resampling
        adds noise, which expected_calibration_error counts as error: its samples are shifted back
        by their mean excess (and kept at 0 or above), or the interval would miss the value.

    Raises:
        ValueError: If arrays, models or settings do not fit together.
    """
    if set(probabilities) != set(thresholds):
        raise ValueError(
            f"probabilities are of {sorted(probabilities)} but thresholds of {sorted(thresholds)}"
        )
    samples = _sample_metrics(
        labels, probabilities, thresholds, num_samples, seed, groups, METRIC_NAMES
    )
    result = {}
    for model, table in samples.items():
        exact = classification_metrics(labels, probabilities[model], thresholds[model])
        table[BIASED_METRIC] = without_excess(exact[BIASED_METRIC], table[BIASED_METRIC])
        result[model] = {
            name: percentile_interval(exact[name], values, confidence)
            for name, values in table.items()
        }
    return result


def paired_difference(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    baseline_probabilities: npt.ArrayLike,
    num_samples: int = 1000,
    seed: int = 0,
    groups: npt.ArrayLike | None = None,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """Say by how much a model beats a baseline on the same rows.

    Positive always means that the model is better: model - baseline for auroc and
    average_precision, baseline - model for log_loss and brier_score.

    Args:
        labels: (N,) 0/1.
        probabilities: (N,) in [0, 1], the model's.
        baseline_probabilities: (N,) in [0, 1], the baseline's.
        num_samples: Bootstrap samples, >= 1.
        seed: The same seed gives the same intervals.
        groups: (N,) user ids; None takes every row as its own user.
        confidence: Width of the interval, in (0, 1).

    Returns:
        {metric: Interval} for `DIFFERENCE_METRICS`.

    Raises:
        ValueError: If arrays or settings do not fit together.
    """
    pair = {"model": probabilities, "baseline": baseline_probabilities}
    thresholds = {"model": 0.5, "baseline": 0.5}
    samples = _sample_metrics(
        labels, pair, thresholds, num_samples, seed, groups, DIFFERENCE_METRICS
    )
    exact = {name: classification_metrics(labels, values, 0.5) for name, values in pair.items()}
    result = {}
    for name in DIFFERENCE_METRICS:
        sign = -1.0 if name in LOWER_IS_BETTER else 1.0
        value = sign * (exact["model"][name] - exact["baseline"][name])
        drawn = sign * (samples["model"][name] - samples["baseline"][name])
        result[name] = percentile_interval(value, drawn, confidence)
    return result


def best_model(
    intervals: Mapping[str, Mapping[str, Interval]], metric: str = "auroc", exclude: str = ""
) -> str:
    """Name the model that is best on `metric`, leaving `exclude` out.

    Raises:
        ValueError: If there is no model to choose from.
    """
    names = [name for name in intervals if name != exclude]
    if not names:
        raise ValueError(f"no model to compare with: got {sorted(intervals)}, excluding {exclude}")
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    worst = float("-inf")

    def strength(name: str) -> float:
        value = sign * intervals[name][metric].value
        return worst if np.isnan(value) else value

    return max(names, key=strength)


def _sample_metrics(
    labels: npt.ArrayLike,
    probabilities: Mapping[str, npt.ArrayLike],
    thresholds: Mapping[str, float],
    num_samples: int,
    seed: int,
    groups: npt.ArrayLike | None,
    names: tuple[str, ...],
) -> dict[str, dict[str, FloatArray]]:
    """Draw the samples once and compute `names` of every model on each of them."""
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1; got {num_samples}")
    checked = as_labels(labels)
    indices_N, num_groups = group_indices(groups, checked.size)
    ranked = {model: rank_rows(checked, values) for model, values in probabilities.items()}
    chunks: dict[str, list[dict[str, FloatArray]]] = {model: [] for model in ranked}
    for weights_NS in resampled_weights(indices_N, num_groups, num_samples, seed):
        for model, rows in ranked.items():
            chunks[model].append(weighted_metrics(rows, thresholds[model], weights_NS, names))
    return {
        model: {name: np.concatenate([part[name] for part in parts]) for name in names}
        for model, parts in chunks.items()
    }


def resampled_weights(
    indices_N: IntArray, num_groups: int, num_samples: int, seed: int
) -> Iterator[FloatArray]:
    """Yield (N, S) weights: how often each row's user was drawn, out of as many draws as users.

    Args:
        indices_N: (N,) number of each row's user, from `group_indices`.
        num_groups: Users.
        num_samples: Bootstrap samples in all; S of them come at a time, to bound memory.
        seed: The same seed gives the same samples.
    """
    rng = np.random.default_rng(seed)
    chunk = max(1, min(num_samples, _MAX_CELLS // max(indices_N.size, num_groups)))
    for start in range(0, num_samples, chunk):
        size = min(chunk, num_samples - start)
        drawn = rng.integers(0, num_groups, size=(size, num_groups))
        cells = drawn * size + np.arange(size)[:, None]
        counts = np.bincount(cells.ravel(), minlength=num_groups * size)
        yield counts.reshape(num_groups, size).astype(np.float64)[indices_N]


def without_excess(value: float, samples_S: FloatArray) -> FloatArray:
    """Shift the samples of a calibration error back by the noise that resampling adds to it."""
    shifted_S: FloatArray = np.maximum(samples_S - (np.mean(samples_S) - value), 0.0)
    return shifted_S


def percentile_interval(value: float, samples_S: FloatArray, confidence: float) -> Interval:
    """Return a value with the central percentiles of those samples that are defined.

    Args:
        value: On the data as they are; NaN where undefined.
        samples_S: (S,) the value on each bootstrap sample.
        confidence: Width of the interval, in (0, 1).

    Raises:
        ValueError: If `confidence` is out of range.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie in (0, 1); got {confidence}")
    defined = samples_S[np.isfinite(samples_S)]
    if np.isnan(value) or defined.size == 0:
        return Interval(value, float("nan"), float("nan"))
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(defined, [tail, 100.0 - tail])
    return Interval(value, float(low), float(high))
