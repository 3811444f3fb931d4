"""Metrics of a binary classifier, for one weighting of the rows or for many at once.

Ties are exact: rows with equal probability are one group everywhere, so no metric depends on the
order of the rows. Definitions agree with scikit-learn where it has one; undefined values are NaN.

Shape letters: N rows, G groups of equal probability, S weightings (bootstrap samples).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.evaluate.arrays import FloatArray, IntArray, as_labels, as_probabilities

LIFT_SHARES = {"lift_at_5pct": 0.05, "lift_at_10pct": 0.10, "lift_at_20pct": 0.20}
METRIC_NAMES = (
    "auroc",
    "average_precision",
    "accuracy",
    "precision",
    "recall",
    "f1",
    "log_loss",
    "brier_score",
    "expected_calibration_error",
    *LIFT_SHARES,
    "base_rate",
)
#: Metrics of which less is better; of every other one (base_rate aside) more is better.
LOWER_IS_BETTER = frozenset({"log_loss", "brier_score", "expected_calibration_error"})
NUM_CALIBRATION_BINS = 10

_LOG_EPS = float(np.finfo(np.float64).eps)  # scikit-learn clips log loss at the same value


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedRows:
    """One model's rows, sorted by falling probability once and reused for every weighting."""

    order_N: IntArray
    """(N,) row numbers by falling probability."""
    labels_N: FloatArray
    """(N,) 0/1 in that order."""
    starts_G: IntArray
    """(G,) where each group of equal probability starts."""
    probabilities_G: FloatArray
    """(G,) falling, distinct."""


def rank_rows(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> RankedRows:
    """Sort the rows by falling probability and find the ties.

    Args:
        labels: (N,) 0/1.
        probabilities: (N,) in [0, 1].

    Raises:
        ValueError: If an array is empty, of the wrong length, or out of range.
    """
    checked_labels = as_labels(labels)
    checked = as_probabilities(probabilities, checked_labels.size)
    order = np.argsort(-checked, kind="stable").astype(np.int64)
    ordered = checked[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return RankedRows(
        order_N=order,
        labels_N=checked_labels[order],
        starts_G=starts.astype(np.int64),
        probabilities_G=ordered[starts],
    )


def classification_metrics(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float
) -> dict[str, float]:
    """Compute every metric of `METRIC_NAMES`.

    - accuracy, precision, recall, f1: a row is flagged when its probability >= threshold;
      precision, recall and f1 are 0 where their denominator is 0.
    - expected_calibration_error: 10 bins of equal mass by rank (tied rows share a bin), the mean
      over rows of |mean probability - churn rate| of the row's bin.
    - lift_at_k: churn rate among the top k % by probability, over the base rate. The last row may
      count in part (5 % of 30 rows are 1.5 rows), and ties at the edge share what is left.
    - With one class only, auroc is NaN; with no churner, average_precision and lift are NaN too.

    Args:
        labels: (N,) 0/1, 1 = churned.
        probabilities: (N,) in [0, 1].
        threshold: Flagging threshold.

    Raises:
        ValueError: If an array is empty, of the wrong length, or out of range.
    """
    ranked = rank_rows(labels, probabilities)
    table = weighted_metrics(ranked, threshold, np.ones((ranked.order_N.size, 1)))
    return {name: float(values[0]) for name, values in table.items()}


def weighted_metrics(
    ranked: RankedRows,
    threshold: float,
    weights_NS: FloatArray,
    names: tuple[str, ...] = METRIC_NAMES,
) -> dict[str, FloatArray]:
    """Compute the metrics under S weightings of the rows at once.

    Args:
        ranked: Rows of one model, from `rank_rows`.
        threshold: Flagging threshold.
        weights_NS: (N, S) >= 0, in the caller's row order (not sorted).
        names: Which metrics to compute.

    Returns:
        {metric: (S,) values}, in the order of `names`.
    """
    if np.isnan(threshold):
        raise ValueError("threshold must be a number; got NaN")
    ordered_NS = weights_NS[ranked.order_N]
    positives_NS = ordered_NS * ranked.labels_N[:, None]
    sums = _GroupSums.of(ranked, ordered_NS, positives_NS)
    wanted = set(names)
    found: dict[str, FloatArray] = {"base_rate": _ratio(sums.positive_S, sums.weight_S)}
    with np.errstate(divide="ignore", invalid="ignore"):
        if "auroc" in wanted:
            found["auroc"] = _auroc(sums)
        if "average_precision" in wanted:
            found["average_precision"] = _average_precision(sums)
        if wanted & {"accuracy", "precision", "recall", "f1"}:
            found |= _threshold_metrics(sums, ranked, threshold)
        if "expected_calibration_error" in wanted:
            found["expected_calibration_error"] = _calibration_error(sums, ranked)
        for name, share in LIFT_SHARES.items():
            if name in wanted:
                found[name] = _lift(sums, share)
        if wanted & {"log_loss", "brier_score"}:
            found |= _proper_scores(sums, ranked)
    return {name: found[name] for name in names}


@dataclass(frozen=True, kw_only=True, slots=True)
class _GroupSums:
    """Weights per group of ties, plain and cumulated from the highest probability down."""

    total_GS: FloatArray
    positive_GS: FloatArray
    cumulative_total_GS: FloatArray
    cumulative_positive_GS: FloatArray
    weight_S: FloatArray
    positive_S: FloatArray

    @classmethod
    def of(cls, ranked: RankedRows, rows_NS: FloatArray, positives_NS: FloatArray) -> _GroupSums:
        if ranked.starts_G.size < rows_NS.shape[0]:
            rows_NS = np.add.reduceat(rows_NS, ranked.starts_G, axis=0)
            positives_NS = np.add.reduceat(positives_NS, ranked.starts_G, axis=0)
        cumulative_total = np.cumsum(rows_NS, axis=0)
        cumulative_positive = np.cumsum(positives_NS, axis=0)
        return cls(
            total_GS=rows_NS,
            positive_GS=positives_NS,
            cumulative_total_GS=cumulative_total,
            cumulative_positive_GS=cumulative_positive,
            weight_S=cumulative_total[-1],
            positive_S=cumulative_positive[-1],
        )


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Divide, with NaN where the denominator is zero."""
    result: FloatArray = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0.0)
    return result


def _auroc(sums: _GroupSums) -> FloatArray:
    """Chance that a churner ranks above a stayer, ties counting half."""
    negative_GS = sums.total_GS - sums.positive_GS
    ahead_GS = sums.cumulative_positive_GS - 0.5 * sums.positive_GS
    won_S = np.einsum("gs,gs->s", negative_GS, ahead_GS)
    return _ratio(won_S, sums.positive_S * (sums.weight_S - sums.positive_S))


def _average_precision(sums: _GroupSums) -> FloatArray:
    """Sum over distinct thresholds of precision times the step in recall."""
    floor = np.maximum(sums.cumulative_total_GS, np.finfo(np.float64).tiny)
    precision_GS = sums.cumulative_positive_GS / floor
    return _ratio(np.einsum("gs,gs->s", sums.positive_GS, precision_GS), sums.positive_S)


def _threshold_metrics(
    sums: _GroupSums, ranked: RankedRows, threshold: float
) -> dict[str, FloatArray]:
    """Accuracy, precision, recall and F1 when flagging probability >= threshold."""
    num_flagged_groups = int(np.count_nonzero(ranked.probabilities_G >= threshold))
    if num_flagged_groups:
        flagged_S = sums.cumulative_total_GS[num_flagged_groups - 1]
        hits_S = sums.cumulative_positive_GS[num_flagged_groups - 1]
    else:
        flagged_S = hits_S = np.zeros_like(sums.weight_S)
    correct_S = hits_S + (sums.weight_S - sums.positive_S) - (flagged_S - hits_S)
    return {
        "accuracy": _ratio(correct_S, sums.weight_S),
        "precision": np.nan_to_num(_ratio(hits_S, flagged_S)),
        "recall": np.nan_to_num(_ratio(hits_S, sums.positive_S)),
        "f1": np.nan_to_num(_ratio(2.0 * hits_S, flagged_S + sums.positive_S)),
    }


def _calibration_error(sums: _GroupSums, ranked: RankedRows) -> FloatArray:
    """Expected calibration error over bins of equal mass."""
    excess_GS = sums.total_GS * ranked.probabilities_G[:, None] - sums.positive_GS
    cumulative_excess_GS = np.cumsum(excess_GS, axis=0)
    middle_GS = sums.cumulative_total_GS - 0.5 * sums.total_GS
    columns = np.arange(sums.weight_S.size)
    before_S = np.zeros_like(sums.weight_S)
    error_S = np.zeros_like(sums.weight_S)
    for bin_number in range(1, NUM_CALIBRATION_BINS + 1):
        if bin_number == NUM_CALIBRATION_BINS:
            until_S = cumulative_excess_GS[-1]
        else:
            edge_S = bin_number * sums.weight_S / NUM_CALIBRATION_BINS
            num_groups_S = np.count_nonzero(middle_GS < edge_S, axis=0)
            reached_S = cumulative_excess_GS[np.maximum(num_groups_S - 1, 0), columns]
            until_S = np.where(num_groups_S > 0, reached_S, 0.0)
        error_S += np.abs(until_S - before_S)
        before_S = until_S
    return _ratio(error_S, sums.weight_S)


def _lift(sums: _GroupSums, share: float) -> FloatArray:
    """Churn rate in the top share by probability, over the base rate."""
    wanted_S = share * sums.weight_S
    last = sums.weight_S.size
    index_S = np.count_nonzero(sums.cumulative_total_GS < wanted_S, axis=0)
    index_S = np.minimum(index_S, sums.total_GS.shape[0] - 1)
    columns = np.arange(last)
    total_S = sums.total_GS[index_S, columns]
    positive_S = sums.positive_GS[index_S, columns]
    missing_S = wanted_S - (sums.cumulative_total_GS[index_S, columns] - total_S)
    before_S = sums.cumulative_positive_GS[index_S, columns] - positive_S
    captured_S = before_S + missing_S * np.nan_to_num(_ratio(positive_S, total_S))
    return _ratio(captured_S * sums.weight_S, wanted_S * sums.positive_S)


def _proper_scores(sums: _GroupSums, ranked: RankedRows) -> dict[str, FloatArray]:
    """Log loss and Brier score, from group sums (rows of a group share their probability)."""
    probability_G = ranked.probabilities_G
    clipped_G = np.clip(probability_G, _LOG_EPS, 1.0 - _LOG_EPS)
    negative_GS = sums.total_GS - sums.positive_GS
    log_S = -(np.log(clipped_G) @ sums.positive_GS + np.log1p(-clipped_G) @ negative_GS)
    square_S = (1.0 - probability_G) ** 2 @ sums.positive_GS + probability_G**2 @ negative_GS
    return {
        "log_loss": _ratio(log_S, sums.weight_S),
        "brier_score": _ratio(square_S, sums.weight_S),
    }
