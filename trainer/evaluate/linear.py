"""Ridge logistic regression by Newton's method, with lower bounds on coefficients."""

from __future__ import annotations

import numpy as np

from churn_udf.calibration import sigmoid
from trainer.evaluate.arrays import FloatArray

_MAX_STEPS = 100
_MAX_HALVINGS = 30
_TOLERANCE = 1e-10


def fit_logistic(
    design_NF: FloatArray,
    labels_N: FloatArray,
    ridge_F: FloatArray,
    centre_F: FloatArray | None = None,
    lower_F: FloatArray | None = None,
    weights_N: FloatArray | None = None,
) -> FloatArray:
    """Fit coefficients that minimise log loss plus ridge / 2 * (coefficient - centre)^2, summed.

    A coefficient that would fall below its bound is set to the bound and the others are refitted
    (the usual way of beta calibration).

    Args:
        design_NF: (N, F) finite; add a column of ones for an intercept.
        labels_N: (N,) 0/1.
        ridge_F: (F,) > 0, penalty per coefficient.
        centre_F: (F,) where the penalty pulls to; zeros when None.
        lower_F: (F,) lower bounds; none when None.
        weights_N: (N,) >= 0, how much each row counts; ones when None.

    Returns:
        (F,) coefficients.
    """
    num_features = design_NF.shape[1]
    centre = np.zeros(num_features) if centre_F is None else centre_F
    lower = np.full(num_features, -np.inf) if lower_F is None else lower_F
    weights = np.ones(labels_N.size) if weights_N is None else weights_N
    fixed = np.zeros(num_features, dtype=bool)
    coefficients: FloatArray = np.maximum(centre, lower)
    while True:
        offset_N = design_NF[:, fixed] @ lower[fixed] if fixed.any() else np.zeros(labels_N.size)
        coefficients[fixed] = lower[fixed]
        if fixed.all():
            return coefficients
        coefficients[~fixed] = _newton(
            design_NF[:, ~fixed], labels_N, ridge_F[~fixed], centre[~fixed], offset_N, weights
        )
        below = ~fixed & (coefficients < lower)
        if not below.any():
            return coefficients
        fixed |= below


def _newton(
    design_NF: FloatArray,
    labels_N: FloatArray,
    ridge_F: FloatArray,
    centre_F: FloatArray,
    offset_N: FloatArray,
    weights_N: FloatArray,
) -> FloatArray:
    """Minimise by Newton steps, halved until the loss falls."""

    def loss_of(coefficients: FloatArray) -> float:
        logits = offset_N + design_NF @ coefficients
        penalty = 0.5 * float(ridge_F @ (coefficients - centre_F) ** 2)
        losses_N = np.logaddexp(0.0, logits) - labels_N * logits
        return float(weights_N @ losses_N) + penalty

    coefficients: FloatArray = centre_F.copy()
    loss = loss_of(coefficients)
    for _ in range(_MAX_STEPS):
        probabilities = sigmoid(offset_N + design_NF @ coefficients)
        gradient = design_NF.T @ (weights_N * (probabilities - labels_N)) + ridge_F * (
            coefficients - centre_F
        )
        curvature_N = weights_N * probabilities * (1.0 - probabilities)
        hessian = (design_NF.T * curvature_N) @ design_NF + np.diag(ridge_F)
        step = np.linalg.solve(hessian, gradient)
        scale = 1.0
        for _ in range(_MAX_HALVINGS):
            candidate = coefficients - scale * step
            candidate_loss = loss_of(candidate)
            if candidate_loss <= loss:
                break
            scale *= 0.5
        else:
            return coefficients
        gained = loss - candidate_loss
        coefficients, loss = np.asarray(candidate, dtype=np.float64), candidate_loss
        if gained <= _TOLERANCE * max(1.0, abs(loss)):
            return coefficients
    return coefficients
