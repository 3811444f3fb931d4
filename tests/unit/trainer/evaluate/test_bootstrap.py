"""Bootstrap intervals: deterministic, clustered by user, paired, of the right width, fast."""

import time

import numpy as np
import pytest

from trainer.evaluate.bootstrap import best_model, bootstrap_intervals, paired_difference
from trainer.evaluate.metrics import METRIC_NAMES, classification_metrics


def make_scores(num_rows=600, seed=0, noise=0.25):
    rng = np.random.default_rng(seed)
    labels = (rng.random(num_rows) < 0.3).astype(int)
    return labels, np.clip(0.35 + 0.2 * labels + noise * rng.normal(size=num_rows), 0.0, 1.0)


def test_intervals_hold_the_value_of_every_metric():
    labels, probabilities = make_scores()
    found = bootstrap_intervals(labels, {"m": probabilities}, {"m": 0.4}, 200)["m"]
    exact = classification_metrics(labels, probabilities, 0.4)
    assert tuple(found) == METRIC_NAMES
    for name, interval in found.items():
        assert interval.value == exact[name]
        assert interval.low <= interval.value <= interval.high, name


def test_same_seed_same_intervals():
    labels, probabilities = make_scores()
    first = bootstrap_intervals(labels, {"m": probabilities}, {"m": 0.4}, 50, seed=7)
    second = bootstrap_intervals(labels, {"m": probabilities}, {"m": 0.4}, 50, seed=7)
    other = bootstrap_intervals(labels, {"m": probabilities}, {"m": 0.4}, 50, seed=8)
    assert first == second
    assert first != other


def test_base_rate_interval_has_the_width_of_theory():
    labels, probabilities = make_scores(num_rows=2000)
    found = bootstrap_intervals(labels, {"m": probabilities}, {"m": 0.4}, 2000)["m"]["base_rate"]
    rate = labels.mean()
    expected = 2 * 1.96 * np.sqrt(rate * (1 - rate) / labels.size)
    assert found.high - found.low == pytest.approx(expected, rel=0.1)


def test_rows_of_a_user_are_drawn_together():
    labels, probabilities = make_scores(num_rows=300)
    users = np.arange(300)
    copies = 9
    repeated = (np.tile(labels, copies), np.tile(probabilities, copies), np.tile(users, copies))
    single = bootstrap_intervals(labels, {"m": probabilities}, {"m": 0.4}, 400)["m"]["auroc"]
    grouped = bootstrap_intervals(
        repeated[0], {"m": repeated[1]}, {"m": 0.4}, 400, groups=repeated[2]
    )["m"]["auroc"]
    naive = bootstrap_intervals(repeated[0], {"m": repeated[1]}, {"m": 0.4}, 400)["m"]["auroc"]
    # Nine copies of a user carry no news: only the grouped interval says so.
    assert grouped == pytest.approx(single, abs=1e-12)
    assert naive.high - naive.low < 0.5 * (single.high - single.low)


def test_groups_may_be_text():
    labels, probabilities = make_scores(num_rows=60)
    users = np.array([f"user {index % 20}" for index in range(60)])
    found = bootstrap_intervals(labels, {"m": probabilities}, {"m": 0.4}, 20, groups=users)
    assert np.isfinite(found["m"]["auroc"].low)


def test_small_chunks_change_nothing_but_memory(monkeypatch):
    labels, probabilities = make_scores(num_rows=100)
    whole = bootstrap_intervals(labels, {"m": probabilities}, {"m": 0.4}, 64)["m"]
    monkeypatch.setattr("trainer.evaluate.bootstrap._MAX_CELLS", 800)
    chunked = bootstrap_intervals(labels, {"m": probabilities}, {"m": 0.4}, 64)["m"]
    assert chunked["auroc"] == pytest.approx(whole["auroc"], abs=1e-12)


def test_one_class_gives_nan_interval():
    found = bootstrap_intervals([0] * 30, {"m": np.linspace(0, 1, 30)}, {"m": 0.4}, 20)["m"]
    assert all(np.isnan(number) for number in found["auroc"])
    assert found["base_rate"] == (0.0, 0.0, 0.0)


def test_rare_class_leaves_out_samples_without_it():
    labels = np.zeros(40, dtype=int)
    labels[0] = 1
    found = bootstrap_intervals(labels, {"m": np.linspace(0, 1, 40)}, {"m": 0.4}, 200)["m"]
    assert np.isfinite(found["auroc"].low)


def test_difference_is_positive_where_the_model_is_better():
    labels, strong = make_scores(noise=0.1)
    _, weak = make_scores(noise=0.6)
    found = paired_difference(labels, strong, weak, 300)
    assert set(found) == {"auroc", "average_precision", "log_loss", "brier_score"}
    for name, interval in found.items():
        assert 0.0 < interval.low <= interval.value <= interval.high, name
    turned = paired_difference(labels, weak, strong, 300)
    for name, interval in turned.items():
        assert interval.value == pytest.approx(-found[name].value)
        assert interval.high < 0.0


def test_difference_of_a_model_with_itself_is_zero():
    labels, probabilities = make_scores()
    for interval in paired_difference(labels, probabilities, probabilities, 50).values():
        assert interval == (0.0, 0.0, 0.0)


def test_pairing_makes_the_difference_sharper_than_the_metrics():
    labels, probabilities = make_scores()
    rival = np.clip(probabilities + 0.02 * np.random.default_rng(9).normal(size=600), 0.0, 1.0)
    difference = paired_difference(labels, probabilities, rival, 300)["auroc"]
    alone = bootstrap_intervals(labels, {"m": probabilities}, {"m": 0.4}, 300)["m"]["auroc"]
    assert difference.high - difference.low < 0.5 * (alone.high - alone.low)


def test_best_model_leaves_the_judged_one_out():
    labels, good = make_scores(noise=0.1)
    _, bad = make_scores(noise=0.6)
    models = {"ours": good, "good": good, "bad": bad}
    found = bootstrap_intervals(labels, models, dict.fromkeys(models, 0.4), 10)
    assert best_model(found, exclude="ours") == "good"
    assert best_model(found, metric="log_loss", exclude="ours") == "good"
    with pytest.raises(ValueError, match="no model"):
        best_model({"ours": found["ours"]}, exclude="ours")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 0}, "at least 1"),
        ({"confidence": 1.0}, "confidence"),
        ({"groups": [1, 2]}, "groups"),
    ],
    ids=["no samples", "confidence", "groups"],
)
def test_bad_settings_are_refused(settings, message):
    labels, probabilities = make_scores(num_rows=30)
    with pytest.raises(ValueError, match=message):
        paired_difference(labels, probabilities, probabilities, **settings)


def test_thresholds_must_be_of_the_same_models():
    labels, probabilities = make_scores(num_rows=30)
    with pytest.raises(ValueError, match="thresholds of"):
        bootstrap_intervals(labels, {"a": probabilities}, {"b": 0.5}, 5)


def test_a_thousand_samples_of_five_models_stay_cheap():
    labels, probabilities = make_scores(num_rows=3000)
    models = {f"m{index}": probabilities for index in range(5)}
    started = time.process_time()
    bootstrap_intervals(labels, models, dict.fromkeys(models, 0.4), 1000)
    assert time.process_time() - started < 20.0
