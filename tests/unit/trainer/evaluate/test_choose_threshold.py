"""Thresholds: every strategy against a search by brute force, limits, and refusals; tiers."""

import numpy as np
import pytest

from trainer.errors import ConfigError
from trainer.evaluate.metrics import classification_metrics
from trainer.evaluate.thresholds import choose_threshold, tier_bounds

COSTS = {"true_positive": 5.0, "false_positive": 5.0, "false_negative": 40.0, "true_negative": 0.0}


def make_scores(num_rows=200, seed=0, decimals=2):
    rng = np.random.default_rng(seed)
    labels = (rng.random(num_rows) < 0.3).astype(int)
    scores = np.clip(0.35 + 0.2 * labels + 0.2 * rng.normal(size=num_rows), 0.01, 0.99)
    return labels, scores.round(decimals)


def every_flagging(probabilities):
    """Flags of every threshold that differs, from nobody to everybody."""
    values = np.unique(probabilities)[::-1]
    return [probabilities > 1.0, *(probabilities >= value for value in values)]


def cost_of(labels, flags):
    churned = labels == 1
    return (
        5.0 * (flags & churned).sum()
        + 5.0 * (flags & ~churned).sum()
        + 40.0 * (~flags & churned).sum()
    )


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_f_beta_is_the_best_there_is(beta, seed):
    labels, scores = make_scores(seed=seed)
    choice = choose_threshold(labels, scores, "f_beta", beta)

    def f_beta(flags):
        hits = (flags & (labels == 1)).sum()
        return (1 + beta**2) * hits / max(flags.sum() + beta**2 * labels.sum(), 1e-9)

    best = max(f_beta(flags) for flags in every_flagging(scores))
    assert f_beta(scores >= choice.threshold) == pytest.approx(best)
    assert choice.is_satisfied


@pytest.mark.parametrize("count", [1, 7, 40])
def test_top_k_flags_the_most_that_fit_into_every_cutoff(count):
    labels, scores = make_scores(num_rows=300, decimals=6)
    cutoffs = np.repeat(["2024-01-01", "2024-02-01"], [200, 100])
    choice = choose_threshold(labels, scores, "top_k", count, cutoffs=cutoffs)

    def most(flags):
        return max(flags[cutoffs == cutoff].sum() for cutoff in np.unique(cutoffs))

    flags = scores >= choice.threshold
    assert most(flags) == count
    assert flags.sum() == max(f.sum() for f in every_flagging(scores) if most(f) <= count)
    assert (choice.parameter, choice.is_satisfied) == (count, True)
    assert f"at most {count} " in choice.reason


def test_top_k_of_a_sample_counts_the_whole_population():
    labels, scores = make_scores(num_rows=200, decimals=6)
    choice = choose_threshold(labels, scores, "top_k", 100, populations=np.full(200, 1000))
    assert (scores >= choice.threshold).sum() == 20


def test_top_k_that_cannot_be_told_apart_flags_nobody():
    choice = choose_threshold([0, 1, 1, 0], [0.5] * 4, "top_k", 2)
    assert (choice.flagged_share, choice.is_satisfied) == (0.0, False)


@pytest.mark.parametrize("parameter", [None, 0, -3, 2.5, float("inf"), float("nan")])
def test_top_k_needs_a_whole_number(parameter):
    with pytest.raises(ConfigError, match="whole number of users per cutoff"):
        choose_threshold([0, 1], [0.2, 0.8], "top_k", parameter)


def test_default_is_f1_and_says_what_it_achieves():
    labels, scores = make_scores()
    choice = choose_threshold(labels, scores)
    found = classification_metrics(labels, scores, choice.threshold)
    assert (choice.strategy, choice.parameter) == ("f_beta", 1.0)
    assert choice.precision == pytest.approx(found["precision"])
    assert choice.recall == pytest.approx(found["recall"])
    assert choice.flagged_share == pytest.approx((scores >= choice.threshold).mean())


@pytest.mark.parametrize("floor", [0.4, 0.6])
def test_precision_floor_finds_the_most_churners(floor):
    labels, scores = make_scores()
    choice = choose_threshold(labels, scores, "precision_floor", floor)
    allowed = [
        labels[flags].sum()
        for flags in every_flagging(scores)
        if flags.any() and labels[flags].mean() >= floor
    ]
    assert choice.precision >= floor
    assert labels[scores >= choice.threshold].sum() == max(allowed)


def test_precision_floor_out_of_reach_is_said():
    labels = np.array([0, 1] * 100)
    choice = choose_threshold(labels, np.linspace(0.1, 0.9, 200), "precision_floor", 1.0)
    assert not choice.is_satisfied
    assert "no threshold reaches a precision of 1" in choice.reason
    assert choice.flagged_share >= 0.01


@pytest.mark.parametrize("floor", [0.2, 0.8, 1.0])
def test_recall_floor_flags_the_fewest(floor):
    labels, scores = make_scores()
    choice = choose_threshold(labels, scores, "recall_floor", floor)
    fewest = min(
        flags.sum()
        for flags in every_flagging(scores)
        if labels[flags].sum() >= floor * labels.sum()
    )
    assert (scores >= choice.threshold).sum() == fewest
    assert choice.recall >= floor


@pytest.mark.parametrize("share", [0.05, 0.1, 1.0])
def test_capacity_is_used_and_never_exceeded(share):
    labels, scores = make_scores(decimals=6)
    choice = choose_threshold(labels, scores, "capacity", share)
    assert (scores >= choice.threshold).sum() == round(share * labels.size)
    assert choice.is_satisfied


def test_capacity_too_small_for_a_tie_flags_nobody():
    labels, _ = make_scores(num_rows=100)
    choice = choose_threshold(labels, np.full(100, 0.5), "capacity", 0.1)
    assert choice.flagged_share == 0.0
    assert not choice.is_satisfied
    assert "cannot be told apart" in choice.reason


def test_cost_is_the_lowest_there_is():
    labels, scores = make_scores()
    choice = choose_threshold(labels, scores, "cost", costs=COSTS)
    lowest = min(cost_of(labels, flags) for flags in every_flagging(scores))
    assert cost_of(labels, scores >= choice.threshold) == lowest
    assert choice.parameter is None


def test_cost_may_flag_nobody():
    labels, scores = make_scores()
    costs = COSTS | {"false_negative": 0.0}
    choice = choose_threshold(labels, scores, "cost", costs=costs)
    assert choice.flagged_share == 0.0
    assert choice.threshold > scores.max()


def test_nobody_can_be_flagged_even_at_probability_one():
    choice = choose_threshold(
        [0, 0, 1], [1.0, 1.0, 0.2], "cost", costs=COSTS | {"false_positive": 99.0}
    )
    assert choice.threshold > 1.0


def test_threshold_lies_between_neighbours():
    choice = choose_threshold([1, 1, 0, 0], [0.9, 0.8, 0.4, 0.1])
    assert choice.threshold == pytest.approx(0.6)


def test_neighbours_one_ulp_apart_are_told_apart():
    low = 0.5
    high = np.nextafter(low, 1.0)
    choice = choose_threshold([1, 0], [high, low])
    assert (high >= choice.threshold, low >= choice.threshold) == (True, False)


@pytest.mark.parametrize("strategy", ["f_beta", "precision_floor", "recall_floor", "capacity"])
@pytest.mark.parametrize("label", [0, 1], ids=["none churned", "all churned"])
def test_one_class_gives_an_answer(strategy, label):
    choice = choose_threshold([label] * 50, np.linspace(0.1, 0.9, 50), strategy)
    assert np.isfinite(choice.threshold)
    assert choice.reason


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "f1"}, "f_beta, precision_floor"),
        ({"strategy": "capacity", "parameter": 0.0}, "above 0, at most 1"),
        ({"strategy": "capacity", "parameter": 1.01}, "above 0, at most 1"),
        ({"strategy": "f_beta", "parameter": float("inf")}, "above 0"),
        ({"strategy": "f_beta", "parameter": float("nan")}, "above 0"),
        ({"strategy": "f_beta", "costs": COSTS}, "costs belong to"),
        ({"strategy": "cost"}, "a finite number for each"),
        ({"strategy": "cost", "costs": {"true_positive": 1.0}}, "a finite number for each"),
        ({"strategy": "cost", "costs": COSTS, "parameter": 0.5}, "takes costs"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        choose_threshold([0, 1], [0.2, 0.8], **settings)


def test_high_tier_is_whoever_is_flagged():
    bounds = tier_bounds(0.4, 0.25)
    assert bounds == {
        "flag_threshold": 0.4,
        "tiers": [
            {"name": "high", "min_probability": 0.4},
            {"name": "medium", "min_probability": 0.25},
            {"name": "low", "min_probability": 0.0},
        ],
    }


@pytest.mark.parametrize("base_rate", [0.4, 0.6, 0.0], ids=["at", "above", "zero"])
def test_medium_tier_stays_below_the_flag(base_rate):
    assert tier_bounds(0.4, base_rate)["tiers"][1]["min_probability"] == pytest.approx(0.2)


@pytest.mark.parametrize("threshold", [-0.1, float("nan")])
def test_bad_tier_input_is_refused(threshold):
    with pytest.raises(ValueError, match="flag_threshold"):
        tier_bounds(threshold, 0.2)
