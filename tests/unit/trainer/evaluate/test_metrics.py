"""Metrics: equal to scikit-learn's, exact on ties, independent of row order."""

import numpy as np
import pytest
from sklearn import metrics as reference

from trainer.evaluate.metrics import (
    METRIC_NAMES,
    classification_metrics,
    rank_rows,
    weighted_metrics,
)


def make_scores(num_rows, seed, decimals=None, base_rate=0.3):
    rng = np.random.default_rng(seed)
    labels = (rng.random(num_rows) < base_rate).astype(int)
    probabilities = np.clip(0.3 + 0.2 * labels + 0.2 * rng.normal(size=num_rows), 0.0, 1.0)
    if decimals is not None:
        probabilities = probabilities.round(decimals)
    return labels, probabilities


@pytest.mark.parametrize("decimals", [None, 2, 1, 0], ids=["distinct", "2", "1", "binary"])
@pytest.mark.parametrize("num_rows", [17, 400])
def test_metrics_equal_scikit_learn(decimals, num_rows):
    labels, probabilities = make_scores(num_rows, seed=num_rows, decimals=decimals)
    threshold = 0.4
    flags = probabilities >= threshold
    expected = {
        "auroc": reference.roc_auc_score(labels, probabilities),
        "average_precision": reference.average_precision_score(labels, probabilities),
        "accuracy": reference.accuracy_score(labels, flags),
        "precision": reference.precision_score(labels, flags, zero_division=0),
        "recall": reference.recall_score(labels, flags),
        "f1": reference.f1_score(labels, flags),
        "log_loss": reference.log_loss(labels, probabilities),
        "brier_score": reference.brier_score_loss(labels, probabilities),
        "base_rate": labels.mean(),
    }
    found = classification_metrics(labels, probabilities, threshold)
    assert tuple(found) == METRIC_NAMES
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name


def test_weighted_metrics_equal_scikit_learn_with_sample_weights():
    labels, probabilities = make_scores(300, seed=5, decimals=2)
    weights = np.random.default_rng(1).integers(0, 4, size=(300, 3)).astype(float)
    found = weighted_metrics(rank_rows(labels, probabilities), 0.4, weights)
    for column in range(3):
        weight = weights[:, column]
        expected = {
            "auroc": reference.roc_auc_score(labels, probabilities, sample_weight=weight),
            "average_precision": reference.average_precision_score(
                labels, probabilities, sample_weight=weight
            ),
            "log_loss": reference.log_loss(labels, probabilities, sample_weight=weight),
            "brier_score": reference.brier_score_loss(labels, probabilities, sample_weight=weight),
            "f1": reference.f1_score(labels, probabilities >= 0.4, sample_weight=weight),
        }
        for name, value in expected.items():
            assert found[name][column] == pytest.approx(value, abs=1e-9), name


def test_integer_weights_equal_repeated_rows():
    labels, probabilities = make_scores(120, seed=8, decimals=1)
    weights = np.random.default_rng(2).integers(0, 4, size=120)
    found = weighted_metrics(rank_rows(labels, probabilities), 0.4, weights[:, None].astype(float))
    repeated = classification_metrics(
        np.repeat(labels, weights), np.repeat(probabilities, weights), 0.4
    )
    for name, value in repeated.items():
        assert found[name][0] == pytest.approx(value, abs=1e-12), name


def test_no_metric_depends_on_row_order():
    labels, probabilities = make_scores(200, seed=3, decimals=1)
    shuffled = np.random.default_rng(0).permutation(200)
    first = classification_metrics(labels, probabilities, 0.4)
    second = classification_metrics(labels[shuffled], probabilities[shuffled], 0.4)
    assert second == pytest.approx(first, abs=1e-12)


def test_calibration_error_by_hand():
    # Ten rows are ten bins of one row: the error is the mean distance to the label.
    probabilities = np.linspace(0.05, 0.95, 10)
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    found = classification_metrics(labels, probabilities, 0.5)["expected_calibration_error"]
    assert found == pytest.approx(np.abs(probabilities - labels).mean())


def test_calibration_error_of_ties_is_one_bin():
    labels = np.array([1, 0, 0, 0] * 25)
    constant = classification_metrics(labels, np.full(100, 0.25), 0.5)
    assert constant["expected_calibration_error"] == pytest.approx(0.0, abs=1e-12)
    constant = classification_metrics(labels, np.full(100, 0.45), 0.5)
    assert constant["expected_calibration_error"] == pytest.approx(0.2)


def test_calibration_error_bins_have_equal_mass():
    labels, probabilities = make_scores(1000, seed=4)
    order = np.argsort(probabilities)
    bins = np.split(order, 10)
    expected = np.mean([abs(labels[b].mean() - probabilities[b].mean()) for b in bins])
    found = classification_metrics(labels, probabilities, 0.5)["expected_calibration_error"]
    assert found == pytest.approx(expected)


def test_lift_by_hand():
    # 20 rows, 4 churners: both of the top two churn, one more within the top four.
    probabilities = np.linspace(1.0, 0.05, 20)
    labels = np.zeros(20, dtype=int)
    labels[[0, 1, 3, 10]] = 1
    found = classification_metrics(labels, probabilities, 0.5)
    assert found["lift_at_5pct"] == pytest.approx(1.0 / 0.2)
    assert found["lift_at_10pct"] == pytest.approx(1.0 / 0.2)
    assert found["lift_at_20pct"] == pytest.approx(0.75 / 0.2)


def test_lift_counts_the_last_row_in_part():
    # 5 % of 30 rows are 1.5 rows: the first churns, the second does not.
    probabilities = np.linspace(1.0, 0.1, 30)
    labels = np.zeros(30, dtype=int)
    labels[[0, 5, 9]] = 1
    assert classification_metrics(labels, probabilities, 0.5)["lift_at_5pct"] == pytest.approx(
        (1.0 / 1.5) / 0.1
    )


def test_constant_scores_have_no_lift():
    labels = np.array([1, 0, 0, 1, 0])
    found = classification_metrics(labels, np.full(5, 0.4), 0.5)
    assert found["lift_at_10pct"] == pytest.approx(1.0)
    assert found["auroc"] == 0.5
    assert found["average_precision"] == pytest.approx(0.4)
    assert found["precision"] == 0.0


@pytest.mark.parametrize("threshold", [0.4, 0.4 - 1e-9, 0.4 + 1e-9], ids=["at", "below", "above"])
def test_threshold_is_inclusive(threshold):
    found = classification_metrics([1, 0], [0.4, 0.1], threshold)
    assert found["recall"] == (1.0 if threshold <= 0.4 else 0.0)


@pytest.mark.parametrize("label", [0, 1], ids=["none churned", "all churned"])
def test_one_class_leaves_undefined_metrics_nan(label):
    found = classification_metrics([label] * 4, [0.1, 0.2, 0.3, 0.9], 0.5)
    assert np.isnan(found["auroc"])
    assert np.isnan(found["average_precision"]) == (label == 0)
    assert np.isfinite(found["log_loss"])
    assert found["base_rate"] == label


def test_certain_and_wrong_has_finite_log_loss():
    assert np.isfinite(classification_metrics([1, 0], [0.0, 1.0], 0.5)["log_loss"])


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([], [], "non-empty"),
        ([0, 1], [0.5], "shape"),
        ([0, 2], [0.5, 0.5], "0 or 1"),
        ([0, np.nan], [0.5, 0.5], "0 or 1"),
        ([0, 1], [0.5, np.nan], "finite"),
        ([0, 1], [0.5, 1.5], "logits"),
        (["a", "b"], [0.5, 0.5], "bool or 0/1"),
    ],
    ids=["empty", "length", "label 2", "nan label", "nan", "above 1", "text"],
)
def test_bad_input_is_refused(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(labels, probabilities, 0.5)


def test_nan_threshold_is_refused():
    with pytest.raises(ValueError, match="threshold"):
        classification_metrics([0, 1], [0.2, 0.8], float("nan"))
