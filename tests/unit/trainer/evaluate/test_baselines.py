"""Baselines: they learn, stay deterministic, never look at test labels, survive ugly features."""

import dataclasses

import lightgbm
import numpy as np
import pytest

from churn_udf.calibration import sigmoid
from trainer.errors import ConfigError
from trainer.evaluate.baselines import (
    BASELINE_TITLES,
    RfmColumns,
    fit_baselines,
)
from trainer.evaluate.metrics import classification_metrics
from trainer.evaluate.preprocessing import fit_linear_inputs
from trainer.evaluate.tabular import BaselineRows

NAMES = ["days_since_active", "active_day_count_365d", "amount_365d", "noise", "empty", "constant"]


def make_rows(num_rows, seed):
    rng = np.random.default_rng(seed)
    recency = np.floor(rng.exponential(20.0, num_rows)) + 1.0
    frequency = rng.poisson(8.0, num_rows).astype(float)
    amount = frequency * rng.lognormal(3.0, 1.0, num_rows)
    logits = 1.2 * np.log1p(recency) - 0.35 * frequency - 1.2 * (frequency < 5) * (recency < 9)
    labels = (rng.random(num_rows) < sigmoid(logits - 1.0)).astype(int)
    features = np.column_stack(
        [
            recency,
            frequency,
            amount,
            rng.normal(size=num_rows),
            np.full(num_rows, np.nan),
            np.full(num_rows, 3.0),
        ]
    )
    features[rng.random(num_rows) < 0.1, 2] = np.nan
    features[0, 3] = np.inf
    users = np.array([f"u{index // 2}" for index in range(num_rows)])
    return BaselineRows(features_NF=features, labels_N=labels, user_ids_N=users)


@pytest.fixture(scope="module")
def splits():
    return make_rows(2_000, 0), make_rows(800, 1), make_rows(800, 2)


@pytest.fixture(scope="module")
def results(splits):
    return fit_baselines(*splits, NAMES)


def test_every_baseline_is_fitted(results):
    assert list(results) == list(BASELINE_TITLES)
    for result in results.values():
        assert result.valid_probabilities.shape == result.test_probabilities.shape == (800,)
        assert np.all((result.test_probabilities > 0) & (result.test_probabilities < 1))
        expected = result.calibrator.apply(result.test_logits)
        assert np.array_equal(result.test_probabilities, expected)


def test_baselines_rank_as_they_should(splits, results):
    labels = splits[2].labels_N
    auroc = {
        name: classification_metrics(labels, result.test_probabilities, 0.5)["auroc"]
        for name, result in results.items()
    }
    assert auroc["base_rate"] == 0.5
    assert 0.65 < auroc["recency"] < auroc["rfm_logistic"]
    assert auroc["logistic"] == pytest.approx(auroc["rfm_logistic"], abs=0.01)
    assert auroc["lightgbm"] > auroc["rfm_logistic"] - 0.02


def test_baselines_are_calibrated(splits, results):
    labels = splits[2].labels_N
    for name, result in results.items():
        found = classification_metrics(labels, result.test_probabilities, 0.5)
        bound = 0.12 if name == "bg_nbd" else 0.06  # its four numbers fit no made-up features
        assert found["expected_calibration_error"] < bound, name


def test_recency_keeps_the_ranking_of_days(splits, results):
    days = splits[2].features_NF[:, 0]
    order = np.argsort(days, kind="stable")
    assert np.all(np.diff(results["recency"].test_probabilities[order]) >= 0.0)


def test_unknown_recency_ranks_with_the_longest(splits, results):
    features = splits[0].features_NF[:3].copy()
    features[:, 0] = [np.nan, np.nanmax(splits[0].features_NF[:, 0]), 1.0]
    logits = results["recency"].logits_of(features)
    assert logits[0] == logits[1] > logits[2]


def test_same_seed_same_result(splits, results):
    again = fit_baselines(*splits, NAMES)
    for name, result in results.items():
        assert np.array_equal(again[name].test_logits, result.test_logits), name
        assert again[name].model_text == result.model_text


def test_test_labels_are_never_looked_at(splits, results):
    train, valid, test = splits
    turned = BaselineRows(
        features_NF=test.features_NF, labels_N=1 - test.labels_N, user_ids_N=test.user_ids_N
    )
    again = fit_baselines(train, valid, turned, NAMES)
    for name, result in results.items():
        assert np.array_equal(again[name].test_probabilities, result.test_probabilities), name


def test_lightgbm_text_is_the_model(splits, results):
    booster = lightgbm.Booster(model_str=results["lightgbm"].model_text)
    features = np.where(np.isfinite(splits[2].features_NF), splits[2].features_NF, np.nan)
    logits = booster.predict(features, raw_score=True, num_threads=1)
    assert logits == pytest.approx(results["lightgbm"].test_logits, abs=1e-9)
    assert booster.feature_name() == NAMES


def test_importance_is_a_sorted_share(results):
    for name in ("logistic", "lightgbm"):
        shares = [share for _, share in results[name].importance]
        assert sum(shares) == pytest.approx(1.0)
        assert shares == sorted(shares, reverse=True)
        assert results[name].importance[0][0] in NAMES[:2]


def test_logits_of_scores_other_rows(splits, results):
    for result in results.values():
        assert result.logits_of(splits[2].features_NF) == pytest.approx(result.test_logits)


def test_few_rows_are_enough():
    found = fit_baselines(make_rows(30, 3), make_rows(20, 4), make_rows(10, 5), NAMES)
    for result in found.values():
        assert np.all(np.isfinite(result.test_probabilities))


def test_only_the_asked_for_are_fitted_and_progress_is_told(splits):
    said = []
    names = ["recency", "base_rate"]
    found = fit_baselines(*splits, NAMES, names=names, progress=said.append)
    assert list(found) == names
    assert said == [BASELINE_TITLES[name] for name in names]


def test_missing_rfm_column_is_named(splits):
    with pytest.raises(ConfigError, match=r"'recency': 'nope'.*days_since_active"):
        fit_baselines(*splits, NAMES, RfmColumns(recency="nope"))


def test_unknown_baseline_is_refused(splits):
    with pytest.raises(ConfigError, match="xgboost"):
        fit_baselines(*splits, NAMES, names=["xgboost"])


def test_one_class_in_training_is_refused(splits):
    train, valid, test = splits
    flat = BaselineRows(
        features_NF=train.features_NF,
        labels_N=np.zeros(2_000, dtype=int),
        user_ids_N=train.user_ids_N,
    )
    with pytest.raises(ValueError, match="one class"):
        fit_baselines(flat, valid, test, NAMES)


def test_wrong_number_of_names_is_refused(splits):
    with pytest.raises(ValueError, match="6 columns, but 5 names"):
        fit_baselines(*splits, NAMES[:-1])


def test_rows_must_fit_together():
    with pytest.raises(ValueError, match="features"):
        BaselineRows(
            features_NF=np.zeros((2, 1)), labels_N=np.array([0, 1, 1]), user_ids_N=np.arange(3)
        )


def test_linear_inputs_use_training_statistics_only():
    train = np.array([[1.0, 100.0], [3.0, np.nan], [5.0, 900.0]])
    inputs = fit_linear_inputs(train)
    alone = inputs.apply(np.array([[3.0, np.nan]]))
    beside_an_outlier = inputs.apply(np.array([[3.0, np.nan], [1e12, -1e12]]))
    assert np.array_equal(alone[0], beside_an_outlier[0])
    assert alone[0].tolist() == pytest.approx([1.0, 0.0, 0.0, 1.0])
    assert np.abs(beside_an_outlier).max() <= 5.0


@pytest.mark.parametrize("name", ["logistic", "lightgbm"])
def test_rows_count_as_much_as_they_weigh(splits, name):
    train, valid, test = splits
    weights = np.where(train.features_NF[:, 0] < 10, 3.0, 0.0)
    weighted = dataclasses.replace(train, weights_N=weights)
    absent = np.flatnonzero(weights == 0.0)
    labels = np.array(train.labels_N)
    labels[absent] = 1 - labels[absent]
    flipped = dataclasses.replace(weighted, labels_N=labels)  # rows of no weight teach nothing
    found = [
        fit_baselines(rows, valid, test, NAMES, names=[name])[name].test_logits
        for rows in (train, weighted, flipped)
    ]
    assert np.abs(found[1] - found[0]).max() > 0.05
    assert found[2] == pytest.approx(found[1], abs=1e-6)
