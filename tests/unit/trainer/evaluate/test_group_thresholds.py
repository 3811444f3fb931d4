"""Thresholds per group: they close the gap that one threshold leaves, and keep a capacity."""

import numpy as np
import pytest

from churn_udf.calibration import sigmoid
from trainer.errors import ConfigError
from trainer.evaluate.group_thresholds import choose_group_thresholds
from trainer.evaluate.thresholds import choose_threshold

NAMES = ("frequent", "rare")


def make_groups(seed, num_rows=6000):
    """The frequent churn less, so that one threshold overlooks most of their churners."""
    rng = np.random.default_rng(seed)
    groups = (rng.random(num_rows) < 0.4).astype(int)
    logits = rng.normal(np.where(groups == 1, 0.6, -1.6), 1.0)
    labels = (rng.random(num_rows) < sigmoid(logits)).astype(int)
    return labels, sigmoid(logits), groups


def recalls(labels, flags, groups):
    return [flags[(groups == group) & (labels == 1)].mean() for group in (0, 1)]


def flags_of(found, probabilities, groups):
    return probabilities >= np.array(found.thresholds)[groups]


@pytest.mark.parametrize("strategy", ["f_beta", "recall_floor", "capacity"])
def test_equal_recall_narrows_the_gap_on_rows_it_has_not_seen(strategy):
    labels, probabilities, groups = make_groups(0)
    choice = choose_threshold(labels, probabilities, strategy)
    found = choose_group_thresholds(labels, probabilities, groups, NAMES, choice)
    labels, probabilities, groups = make_groups(1)
    before = recalls(labels, probabilities >= choice.threshold, groups)
    after = recalls(labels, flags_of(found, probabilities, groups), groups)
    assert before[1] - before[0] > 0.15
    assert abs(after[1] - after[0]) < 0.06


def test_equal_recall_keeps_the_recall_of_everybody():
    labels, probabilities, groups = make_groups(0)
    choice = choose_threshold(labels, probabilities, "recall_floor", 0.6)
    found = choose_group_thresholds(labels, probabilities, groups, NAMES, choice)
    assert [one["recall"] for one in found.groups] == pytest.approx([choice.recall] * 2, abs=0.01)
    assert [one["is_own"] for one in found.groups] == [True, True]
    assert found.flagged_share == pytest.approx(flags_of(found, probabilities, groups).mean())


@pytest.mark.parametrize(("strategy", "parameter"), [("capacity", 0.1), ("top_k", 300)])
def test_a_capacity_is_kept(strategy, parameter):
    labels, probabilities, groups = make_groups(0)
    choice = choose_threshold(labels, probabilities, strategy, parameter)
    found = choose_group_thresholds(labels, probabilities, groups, NAMES, choice)
    assert 0.95 * choice.flagged_share < found.flagged_share <= choice.flagged_share
    first, second = (one["recall"] for one in found.groups)
    assert first == pytest.approx(second, abs=0.02)


def test_same_strategy_is_the_strategy_in_each_group():
    labels, probabilities, groups = make_groups(0)
    choice = choose_threshold(labels, probabilities, "capacity", 0.2)
    found = choose_group_thresholds(labels, probabilities, groups, NAMES, choice, "same_strategy")
    for group in (0, 1):
        inside = groups == group
        alone = choose_threshold(labels[inside], probabilities[inside], "capacity", 0.2)
        assert found.thresholds[group] == alone.threshold
        assert found.groups[group]["flagged_share"] == pytest.approx(0.2, abs=0.01)


def test_a_small_or_empty_group_keeps_the_threshold_for_everybody():
    labels, probabilities, groups = make_groups(0, 600)
    groups = np.where(np.arange(600) < 30, 2, groups)
    choice = choose_threshold(labels, probabilities)
    names = (*NAMES, "few", "none")
    found = choose_group_thresholds(labels, probabilities, groups, names, choice)
    assert found.thresholds[2:] == (choice.threshold, choice.threshold)
    assert [one["is_own"] for one in found.groups] == [True, True, False, False]
    assert found.groups[3]["recall"] is None


def test_nobody_flagged_stays_nobody():
    labels, _, groups = make_groups(0, 600)
    choice = choose_threshold(labels, np.full(600, 0.3), "capacity", 0.1)
    found = choose_group_thresholds(labels, np.full(600, 0.3), groups, NAMES, choice)
    assert found.flagged_share == 0.0


def test_refusals():
    labels, probabilities, groups = make_groups(0, 600)
    choice = choose_threshold(labels, probabilities, "top_k", 50)
    with pytest.raises(ConfigError, match="equal_recall, same_strategy"):
        choose_group_thresholds(labels, probabilities, groups, NAMES, choice, "fair")
    with pytest.raises(ConfigError, match="top_k"):
        choose_group_thresholds(labels, probabilities, groups, NAMES, choice, "same_strategy")
    with pytest.raises(ValueError, match="groups must have shape"):
        choose_group_thresholds(labels, probabilities, groups[1:], NAMES, choice)
