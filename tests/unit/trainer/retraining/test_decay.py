"""Standard errors against what resampling finds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy
from scipy.stats import norm
from sklearn.metrics import log_loss, roc_auc_score

from trainer.retraining.decay import (
    auroc_error,
    chance_calibration_error,
    critical_value,
    entropy,
    error_of_interval,
    log_loss_gain_error,
)
from trainer.retraining.inputs import Bin


def test_auroc_error_is_that_of_drawn_scores() -> None:
    generator = np.random.default_rng(1)
    labels = np.arange(400) < 100
    drawn = [roc_auc_score(labels, generator.exponential(1.0 + 2.0 * labels)) for _ in range(500)]
    assert auroc_error(float(np.mean(drawn)), 100, 300) == pytest.approx(np.std(drawn), rel=0.1)


@pytest.mark.parametrize("base_rate", [0.0, 0.01, 0.3, 0.5, 1.0])
def test_entropy_is_scipys(base_rate: float) -> None:
    assert entropy(base_rate) == pytest.approx(scipy_entropy([base_rate, 1 - base_rate]), abs=1e-9)


def test_gain_error_is_that_of_drawn_users() -> None:
    generator = np.random.default_rng(2)

    def draw(size: int) -> tuple[np.ndarray, np.ndarray]:
        probabilities = generator.beta(1.0, 4.0, size)
        return generator.random(size) < probabilities, probabilities

    gains = []
    for _ in range(500):
        labels, probabilities = draw(500)
        gains.append(entropy(float(labels.mean())) - log_loss(labels, probabilities))
    labels, probabilities = draw(200_000)
    losses = -np.log(np.where(labels, probabilities, 1 - probabilities))
    covariance = np.cov(losses, labels)
    found = log_loss_gain_error(
        float(labels.mean()), 500, covariance[0, 0], covariance[1, 1], covariance[0, 1]
    )
    assert found == pytest.approx(np.std(gains), rel=0.1)


def test_chance_calibration_error_is_that_of_perfect_probabilities() -> None:
    generator = np.random.default_rng(3)
    sizes, means = np.array([50, 60, 70]), np.array([0.1, 0.3, 0.6])
    rates = generator.binomial(sizes, means, size=(20_000, 3)) / sizes
    errors = np.abs(rates - means) @ sizes / sizes.sum()
    bins = [
        Bin(num_users=int(n), mean_probability=float(p)) for n, p in zip(sizes, means, strict=True)
    ]
    mean, spread = chance_calibration_error(bins)
    assert mean == pytest.approx(errors.mean(), rel=0.02)
    assert spread == pytest.approx(errors.std(), rel=0.05)


def test_intervals_and_confidence_are_scipys() -> None:
    assert critical_value(0.99) == pytest.approx(norm.ppf(0.99), abs=1e-9)
    low, high = norm.interval(0.9, 0.7, 0.02)
    assert error_of_interval(low, high, 0.9) == pytest.approx(0.02, abs=1e-9)
    assert math.isclose(critical_value(0.5), 0.0, abs_tol=1e-12)
