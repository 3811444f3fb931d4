"""Reliability: whether what was said happened, as a table, a gap, and a slope.

Bins and slope describe one set of rows: a cutoff, a segment, or all of them.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from churn_udf.calibration import sigmoid
from trainer.evaluate.arrays import FloatArray, IntArray, as_labels, as_probabilities, group_indices
from trainer.evaluate.curves import calibration_bins
from trainer.evaluate.linear import fit_logistic

NUM_BINS = 10
MIN_BIN_ROWS = 25
"""A bin of fewer rows tells nothing: small sets of rows get fewer bins."""

_RIDGE = 1e-6
_CLIP = 1e-6  # a probability of 0 or 1 has no logit


def reliability_table(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    users: npt.ArrayLike | None = None,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Describe how far the probabilities of these rows can be taken at their word.

    The recalibration line is the logistic regression of the label on the logit that was said:
    slope 1 and intercept 0 are perfect, a slope below 1 says that the probabilities are too
    extreme. Its intervals count users, not rows (sandwich estimate clustered by user).

    Args:
        labels: (N,) 0/1.
        probabilities: (N,) in [0, 1].
        users: (N,) user ids; None takes every row as its own user.
        confidence: Width of the intervals of slope and intercept, (0, 1).

    Returns:
        JSON-ready: ``bins``, [{mean_probability, churn_rate, low, high, rows}], at most ten of
        equal size with 95 % Wilson intervals over users; ``slope`` and ``intercept``, {value,
        low, high}, None where they are undefined (one class, or one probability for everybody).

    Raises:
        ValueError: If the arrays do not fit together.
    """
    labels_N = as_labels(labels)
    probabilities_N = as_probabilities(probabilities, labels_N.size)
    num_bins = int(np.clip(labels_N.size // MIN_BIN_ROWS, 1, NUM_BINS))
    bins = calibration_bins(labels_N, probabilities_N, num_bins, users)
    table: dict[str, Any] = {
        "bins": [
            {
                "mean_probability": one.mean_probability,
                "churn_rate": one.churn_rate,
                "low": one.low,
                "high": one.high,
                "rows": one.num_rows,
            }
            for one in bins
        ]
    }
    clipped_N = np.clip(probabilities_N, _CLIP, 1.0 - _CLIP)
    logits_N = np.log(clipped_N) - np.log1p(-clipped_N)
    if np.ptp(labels_N) == 0.0 or np.ptp(logits_N) < 1e-9:
        return {**table, "slope": None, "intercept": None}
    indices_N, num_users = group_indices(users, labels_N.size)
    values, errors = _recalibration_line(logits_N, labels_N, indices_N, num_users)
    reach = NormalDist().inv_cdf(0.5 + 0.5 * confidence)
    for name, value, error in zip(("slope", "intercept"), values, errors, strict=True):
        low, high = float(value - reach * error), float(value + reach * error)
        table[name] = {"value": float(value), "low": low, "high": high}
    return table


def _recalibration_line(
    logits_N: FloatArray, labels_N: FloatArray, indices_N: IntArray, num_users: int
) -> tuple[FloatArray, FloatArray]:
    """Return (2,) slope and intercept, and (2,) their standard errors clustered by user."""
    design_N2 = np.column_stack([logits_N, np.ones_like(logits_N)])
    line = fit_logistic(design_N2, labels_N, ridge_F=np.full(2, _RIDGE))
    fitted_N = sigmoid(design_N2 @ line)
    bread = np.linalg.inv(
        (design_N2 * (fitted_N * (1.0 - fitted_N))[:, None]).T @ design_N2 + _RIDGE * np.eye(2)
    )
    scores_N2 = design_N2 * (labels_N - fitted_N)[:, None]
    scores_U2 = np.column_stack(
        [np.bincount(indices_N, column, num_users) for column in scores_N2.T]
    )
    return line, np.sqrt(np.diag(bread @ (scores_U2.T @ scores_U2) @ bread))
