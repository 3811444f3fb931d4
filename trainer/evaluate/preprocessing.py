"""Fitting the inputs of linear models on training rows; ``churn_udf.model.linear`` applies them."""

from __future__ import annotations

import numpy as np

from churn_udf.model.linear import LinearInputs, signed_log
from trainer.evaluate.arrays import FloatArray

_LOG_ABOVE = 10.0  # columns that reach beyond it are counts, days or money: take their logarithm
_MIN_MISSING_SHARE = 0.005


def fit_linear_inputs(features_NF: FloatArray) -> LinearInputs:
    """Learn the transformation of each column.

    Args:
        features_NF: (N, F) training features; NaN = unknown.
    """
    known_NF = np.isfinite(features_NF)
    reach_F = np.array(
        [
            np.percentile(np.abs(column[known]), 99.0) if known.any() else 0.0
            for column, known in zip(features_NF.T, known_NF.T, strict=True)
        ]
    )
    is_logged_F = reach_F > _LOG_ABOVE
    values_NF = signed_log(features_NF, is_logged_F)
    count_F = np.maximum(known_NF.sum(axis=0), 1)
    mean_F = np.where(known_NF, values_NF, 0.0).sum(axis=0) / count_F
    centred_NF = np.where(known_NF, values_NF - mean_F, 0.0)
    scale_F = np.sqrt((centred_NF**2).sum(axis=0) / count_F)
    missing_F = 1.0 - known_NF.mean(axis=0)
    return LinearInputs(
        is_logged_F=is_logged_F,
        mean_F=mean_F,
        inverse_scale_F=np.where(scale_F > 1e-9, 1.0 / np.maximum(scale_F, 1e-9), 0.0),
        is_flagged_F=(missing_F > _MIN_MISSING_SHARE) & (missing_F < 1.0 - _MIN_MISSING_SHARE),
    )
