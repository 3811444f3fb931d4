"""Curves and slices: equal to scikit-learn's points, thinned without losing their shape."""

import numpy as np
import pytest
from sklearn import metrics as reference

from trainer.evaluate.curves import (
    Curve,
    calibration_bins,
    confusion,
    gain_curve,
    lift_curve,
    precision_recall_curve,
    probability_histogram,
    roc_curve,
    thin,
    wilson_interval,
)
from trainer.evaluate.metrics import classification_metrics


def make_scores(num_rows=150, seed=0, decimals=2):
    rng = np.random.default_rng(seed)
    labels = (rng.random(num_rows) < 0.3).astype(int)
    scores = np.clip(0.35 + 0.2 * labels + 0.2 * rng.normal(size=num_rows), 0.0, 1.0)
    return labels, scores.round(decimals)


def test_roc_points_are_scikit_learns():
    labels, scores = make_scores()
    x, y, _ = reference.roc_curve(labels, scores, drop_intermediate=False)
    found = roc_curve(labels, scores)
    assert found.x == pytest.approx(x)
    assert found.y == pytest.approx(y)


def test_precision_recall_points_are_scikit_learns():
    labels, scores = make_scores()
    precision, recall, _ = reference.precision_recall_curve(labels, scores)
    found = precision_recall_curve(labels, scores)
    # Read from the other end, without scikit-learn's artificial point of precision 1; it also
    # stops at full recall where we go on to everybody.
    reached = recall[:-1][::-1]
    assert found.x[1 : 1 + reached.size] == pytest.approx(reached)
    assert found.y[1 : 1 + reached.size] == pytest.approx(precision[:-1][::-1])


def test_gain_and_lift_agree_with_the_metric():
    labels, scores = make_scores(decimals=1)
    expected = classification_metrics(labels, scores, 0.5)["lift_at_10pct"]
    gain = gain_curve(labels, scores)
    assert np.interp(0.1, gain.x, gain.y) / 0.1 == pytest.approx(expected)
    lift = lift_curve(labels, scores)
    assert np.interp(0.1, lift.x, lift.y) == pytest.approx(expected)
    assert (gain.x[-1], gain.y[-1], lift.y[-1]) == pytest.approx((1.0, 1.0, 1.0))


@pytest.mark.parametrize("make", [roc_curve, precision_recall_curve, gain_curve, lift_curve])
def test_without_churners_there_is_no_curve(make):
    assert make([0, 0, 0], [0.1, 0.5, 0.9]) is None


def test_many_points_are_thinned_and_keep_the_area():
    labels, scores = make_scores(num_rows=50_000, decimals=9)
    curve = roc_curve(labels, scores)
    assert curve.x.size <= 300
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0.0, 0.0, 1.0, 1.0)
    area = np.trapezoid(curve.y, curve.x)
    exact = classification_metrics(labels, scores, 0.5)["auroc"]
    assert area == pytest.approx(exact, abs=2e-3)


def test_thinning_leaves_short_curves_alone():
    curve = Curve(np.arange(5.0), np.arange(5.0))
    assert thin(curve) is curve


def test_calibration_bins_explain_the_calibration_error():
    labels, scores = make_scores(num_rows=500, decimals=1)
    bins = calibration_bins(labels, scores)
    error = sum(one.num_rows * abs(one.mean_probability - one.churn_rate) for one in bins) / 500
    exact = classification_metrics(labels, scores, 0.5)["expected_calibration_error"]
    assert error == pytest.approx(exact)
    assert sum(one.num_rows for one in bins) == 500
    assert all(one.low <= one.churn_rate <= one.high for one in bins)
    means = [one.mean_probability for one in bins]
    assert means == sorted(means)


def test_wilson_interval_of_a_known_case():
    assert wilson_interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    low, high = wilson_interval(0.0, 10)
    assert low == 0.0
    assert 0.25 < high < 0.31


def test_histogram_counts_everyone_including_one():
    stayed, churned = probability_histogram([0, 0, 1, 1], [0.0, 0.049, 0.05, 1.0])
    assert stayed.tolist() == [2] + [0] * 19
    assert churned.tolist() == [0, 1] + [0] * 17 + [1]


def test_confusion_is_scikit_learns():
    labels, scores = make_scores()
    expected = reference.confusion_matrix(labels, scores >= 0.5).ravel()
    found = confusion(labels, scores, 0.5)
    assert [
        found.true_negative,
        found.false_positive,
        found.false_negative,
        found.true_positive,
    ] == expected.tolist()


def test_calibration_intervals_count_users_and_not_rows():
    labels, scores = make_scores(num_rows=300)
    once = calibration_bins(labels, scores, 3)
    twice = calibration_bins(
        np.repeat(labels, 2), np.repeat(scores, 2), 3, np.repeat(np.arange(300), 2)
    )
    assert [one.num_rows for one in twice] == [2 * one.num_rows for one in once]
    for one, other in zip(once, twice, strict=True):
        assert (other.low, other.high) == pytest.approx((one.low, one.high))
