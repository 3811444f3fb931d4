"""What base rate to expect at a cutoff whose labels nobody knows yet.

The base rate of churn moves with season and growth. Three ways to place it, as an offset of the
log odds that a calibrator adds:

* ``newest``: that of the newest labelled rows, on which the calibrator was fitted: no offset
  but for kinds that cannot move the base rate.
* ``shrunk``: halfway between the newest labelled rows and all labels that the model has learned
  from. The newest rows are one draw of the season; half of their deviation is what persisted on
  validation cutoffs of the data sets in docs/experiment_log.md.
* ``em``: without labels, from the scores at the cutoff itself (Saerens, Latinne and Decaestecker
  2002). It holds where only the share of churners moves and churners look as before; where the
  customers themselves change, as they do in shops, it goes far astray (docs/experiment_log.md).
"""

from __future__ import annotations

import numpy as np

from churn_udf.calibration import Calibrator, sigmoid
from trainer.evaluate.arrays import FloatArray

BASE_RATE_KINDS = ("newest", "shrunk", "em")
PERSISTENCE = 0.5
_EM_STEPS = 1_000
_EM_TOLERANCE = 1e-8


def best_shift(logits_N: FloatArray, labels_N: FloatArray) -> float:
    """Return the intercept that minimises log loss, by Newton's method.

    Args:
        logits_N: (N,) finite.
        labels_N: (N,) 0/1; where all are the same the result is bounded, not infinite.
    """
    shift = 0.0
    for _ in range(25):
        probabilities = sigmoid(logits_N + shift)
        slope = float(np.mean(probabilities * (1.0 - probabilities)))
        move = float(np.mean(labels_N - probabilities)) / max(slope, 1e-6)
        shift += float(np.clip(move, -2.0, 2.0))
        if abs(move) < 1e-9:
            break
    return shift


def shifted_log_loss(logits_N: FloatArray, labels_N: FloatArray) -> float:
    """Return the mean log loss at the best intercept: what a moved base rate cannot flatter."""
    shifted_N = logits_N + best_shift(logits_N, labels_N)
    return float(np.mean(np.logaddexp(0.0, shifted_N) - labels_N * shifted_N))


def em_shift(probabilities_N: FloatArray, base_rate: float) -> float:
    """Return the change of log odds of the base rate that the unlabelled scores imply.

    Args:
        probabilities_N: (N,) calibrated for rows of ``base_rate``.
        base_rate: Share of churners where they were calibrated, in (0, 1).
    """
    bounded_N = np.clip(probabilities_N, 1e-6, 1.0 - 1e-6)
    logits_N = np.log(bounded_N) - np.log1p(-bounded_N)
    start = float(np.log(base_rate) - np.log1p(-base_rate))
    rate = base_rate
    for _ in range(_EM_STEPS):
        shift = float(np.log(rate) - np.log1p(-rate)) - start
        updated = float(np.clip(sigmoid(logits_N + shift).mean(), 1e-3, 1.0 - 1e-3))
        if abs(updated - rate) < _EM_TOLERANCE:
            break
        rate = updated
    return float(np.log(rate) - np.log1p(-rate)) - start


def base_rate_offset(
    kind: str,
    calibrator: Calibrator,
    logits_N: FloatArray,
    labels_N: FloatArray,
    unlabelled_logits_M: FloatArray,
) -> float:
    """Return the offset for a calibrator, from labelled rows and the rows to be scored.

    Args:
        kind: Of ``BASE_RATE_KINDS``.
        calibrator: Fitted on the labelled rows, without offset.
        logits_N: (N,) raw logits of the labelled rows, by a model that did not learn from them.
        labels_N: (N,) their labels.
        unlabelled_logits_M: (M,) raw logits at the cutoff to be scored; read by ``em`` alone.
    """
    calibrated_N = calibrator.apply(logits_N)
    log_odds_N = np.log(calibrated_N) - np.log1p(-calibrated_N)
    left_over = best_shift(log_odds_N, labels_N)  # some kinds cannot move the base rate
    if kind == "shrunk":
        return left_over - (1.0 - PERSISTENCE) * best_shift(logits_N, labels_N)
    if kind == "em" and unlabelled_logits_M.size:
        base_rate = float(np.clip(labels_N.mean(), 1e-3, 1.0 - 1e-3))
        return em_shift(calibrator.apply(unlabelled_logits_M), base_rate)
    return left_over
