"""Turning feature columns into inputs that a linear model can use, fitted on training rows only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.evaluate.arrays import FloatArray

_LOG_ABOVE = 10.0  # columns that reach beyond it are counts, days or money: take their logarithm
_CLIP = 5.0  # standard deviations
_MIN_MISSING_SHARE = 0.005


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearInputs:
    """Signed log1p where a column is long-tailed, standardised, clipped, unknown = mean + flag."""

    is_logged_F: npt.NDArray[np.bool_]
    mean_F: FloatArray
    scale_F: FloatArray
    is_flagged_F: npt.NDArray[np.bool_]

    @classmethod
    def fit(cls, features_NF: FloatArray) -> LinearInputs:
        """Learn the transformation.

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
        values_NF = _signed_log(features_NF, is_logged_F)
        count_F = np.maximum(known_NF.sum(axis=0), 1)
        mean_F = np.where(known_NF, values_NF, 0.0).sum(axis=0) / count_F
        centred_NF = np.where(known_NF, values_NF - mean_F, 0.0)
        scale_F = np.sqrt((centred_NF**2).sum(axis=0) / count_F)
        missing_F = 1.0 - known_NF.mean(axis=0)
        return cls(
            is_logged_F=is_logged_F,
            mean_F=mean_F,
            scale_F=np.where(scale_F > 1e-9, scale_F, np.inf),
            is_flagged_F=(missing_F > _MIN_MISSING_SHARE) & (missing_F < 1.0 - _MIN_MISSING_SHARE),
        )

    def apply(self, features_NF: FloatArray) -> FloatArray:
        """Return (N, D) finite inputs: ones, features, then flags of the unknown."""
        known_NF = np.isfinite(features_NF)
        values_NF = _signed_log(features_NF, self.is_logged_F)
        scaled_NF = np.where(known_NF, (values_NF - self.mean_F) / self.scale_F, 0.0)
        flags_ND = (~known_NF[:, self.is_flagged_F]).astype(np.float64)
        ones_N1 = np.ones((features_NF.shape[0], 1))
        return np.hstack([ones_N1, np.clip(scaled_NF, -_CLIP, _CLIP), flags_ND])


def _signed_log(features_NF: FloatArray, is_logged_F: npt.NDArray[np.bool_]) -> FloatArray:
    """Take sign(x) * log1p(|x|) of the chosen columns; the unknown becomes 0."""
    known_NF = np.where(np.isfinite(features_NF), features_NF, 0.0)
    logged_NF = np.sign(known_NF) * np.log1p(np.abs(known_NF))
    return np.where(is_logged_F, logged_NF, known_NF)
