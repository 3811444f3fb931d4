"""How much worse than promised is more than chance: standard errors of quality measures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from trainer.retraining.inputs import Bin


def critical_value(confidence: float) -> float:
    """Return how many standard errors a loss must be, one-sided.

    Args:
        confidence: [0.5, 1).
    """
    return NormalDist().inv_cdf(confidence)


def error_of_interval(low: float, high: float, confidence: float) -> float:
    """Return the standard error that a two-sided interval tells of."""
    return (high - low) / (2.0 * NormalDist().inv_cdf(0.5 + confidence / 2.0))


def auroc_error(auroc: float, num_churned: int, num_stayed: int) -> float:
    """Return the standard error of an AUROC (Hanley and McNeil 1982).

    Args:
        auroc: [0, 1].
        num_churned: 1 or more.
        num_stayed: 1 or more.
    """
    above_two_stayers = auroc / (2.0 - auroc)
    two_churners_above = 2.0 * auroc**2 / (1.0 + auroc)
    variance = (
        auroc * (1.0 - auroc)
        + (num_churned - 1) * (above_two_stayers - auroc**2)
        + (num_stayed - 1) * (two_churners_above - auroc**2)
    ) / (num_churned * num_stayed)
    return math.sqrt(max(0.0, variance))


def entropy(base_rate: float) -> float:
    """Return the log loss of always saying the base rate, in nats."""
    parts = (base_rate, 1.0 - base_rate)
    return -sum(part * math.log(part) for part in parts if part > 0.0)


def log_loss_gain_error(
    base_rate: float, num_users: int, loss_variance: float, label_variance: float, covariance: float
) -> float:
    """Return the standard error of ``entropy(base_rate) - log loss``, by the delta method.

    Args:
        base_rate: (0, 1).
        num_users: 2 or more.
        loss_variance: Sample variance of the users' log losses.
        label_variance: Of their labels.
        covariance: Of both.
    """
    slope = math.log((1.0 - base_rate) / base_rate)
    variance = slope**2 * label_variance - 2.0 * slope * covariance + loss_variance
    return math.sqrt(max(0.0, variance) / num_users)


def chance_calibration_error(bins: Sequence[Bin]) -> tuple[float, float]:
    """Return mean and standard deviation of the calibration error of perfect probabilities.

    Even they miss the rate of a bin by chance, and the error adds up absolute misses.

    Args:
        bins: Users and mean probability of each bin.
    """
    num_users = sum(item.num_users for item in bins)
    mean = variance = 0.0
    for item in bins:
        spread = item.mean_probability * (1.0 - item.mean_probability) / item.num_users
        weight = item.num_users / num_users
        mean += weight * math.sqrt(2.0 * spread / math.pi)
        variance += weight**2 * spread * (1.0 - 2.0 / math.pi)
    return mean, math.sqrt(variance)
