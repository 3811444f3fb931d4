"""Numeric features as piecewise-linear codes (Gorishniy, Rubachev and Babenko 2022).

Each feature is coded by how far it lies through each of its quantile bins, each in [0, 1]; one
more column says that it is unknown. The knots are buffers, so they travel with the weights.

Shape suffixes: B rows, F features, Q bins.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn


def quantile_knots(features: npt.NDArray[np.float64], num_bins: int) -> npt.NDArray[np.float64]:
    """Return bin edges per feature from its known values.

    Args:
        features: (B, F) training rows, NaN where unknown.
        num_bins: Bins per feature, >= 1.

    Returns:
        (F, num_bins + 1) float64, non-decreasing along the bins; zeros where nothing is known.
    """
    knots = np.zeros((features.shape[1], num_bins + 1))
    levels = np.linspace(0.0, 1.0, num_bins + 1)
    for index in range(features.shape[1]):
        known = features[np.isfinite(features[:, index]), index]
        if known.size:
            knots[index] = np.quantile(known, levels)
    return knots


class PiecewiseLinearEncoding(nn.Module):
    """(B, F) float64 with NaN for unknown -> (B, F, num_bins + 1) float32.

    Attributes:
        knots_FQ: (F, num_bins + 1) bin edges, set by ``fit``.
    """

    knots_FQ: torch.Tensor

    def __init__(self, num_features: int, num_bins: int) -> None:
        super().__init__()
        knots = torch.zeros(num_features, num_bins + 1, dtype=torch.float64)
        self.register_buffer("knots_FQ", knots)

    def fit(self, features: npt.NDArray[np.float64]) -> None:
        """Set the knots from training rows, (B, F) with NaN where unknown."""
        num_bins = self.knots_FQ.shape[1] - 1
        self.knots_FQ.copy_(torch.from_numpy(quantile_knots(features, num_bins)))

    def forward(self, features_BF: torch.Tensor) -> torch.Tensor:
        """Encode; a bin of no width is a step at its edge."""
        values_BF1 = features_BF.to(torch.float64).unsqueeze(-1)
        lower_FQ, upper_FQ = self.knots_FQ[:, :-1], self.knots_FQ[:, 1:]
        width_FQ = upper_FQ - lower_FQ
        through_BFQ = ((values_BF1 - lower_FQ) / width_FQ.clamp_min(1e-300)).clamp(0.0, 1.0)
        step_BFQ = (values_BF1 > lower_FQ).to(torch.float64)
        coded_BFQ = torch.where(width_FQ > 0, through_BFQ, step_BFQ)
        unknown_BF1 = torch.isnan(values_BF1)
        coded_BFQ = coded_BFQ.masked_fill(unknown_BF1, 0.0)
        return torch.cat([coded_BFQ, unknown_BF1.to(torch.float64)], dim=-1).to(torch.float32)
