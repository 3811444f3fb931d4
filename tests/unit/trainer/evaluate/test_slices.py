"""Metrics by segment, their intervals, and reliability tables against known cases."""

import numpy as np
import pytest

from churn_udf.calibration import sigmoid
from trainer.evaluate.metrics import classification_metrics
from trainer.evaluate.reliability import reliability_table
from trainer.evaluate.slices import (
    MAX_SAMPLES,
    SLICE_METRICS,
    Division,
    Rows,
    slice_document,
    worst_segments,
)


def make_rows(num_rows=1200, seed=0, *, shift=0.0, slope=1.0):
    """Calibrated probabilities; in group 1 the logits are moved and stretched."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-0.5, 1.2, num_rows)
    group = (np.arange(num_rows) % 3 == 0).astype(int)
    labels = (rng.random(num_rows) < sigmoid(logits)).astype(int)
    said = sigmoid(np.where(group == 1, slope * logits + shift, logits))
    return Rows(labels, said, said >= 0.5, np.arange(num_rows)), group


def document_of(rows, group, names=("rest", "moved"), **options):
    return slice_document(
        rows, [Division("group", "made up", names, group)], num_samples=200, **options
    )


def test_a_segment_has_the_metrics_of_its_rows():
    rows, group = make_rows()
    document = document_of(rows, group)
    segments = document["by"]["group"]["segments"]
    assert [one["segment"] for one in segments] == ["rest", "moved"]
    for number, segment in enumerate(segments):
        inside = group == number
        expected = classification_metrics(rows.labels[inside], rows.probabilities[inside], 0.5)
        metrics = segment["metrics"]
        for name in set(SLICE_METRICS) & set(expected):
            assert metrics[name]["value"] == pytest.approx(expected[name]), name
        gap = rows.probabilities[inside].mean() - rows.labels[inside].mean()
        assert metrics["calibration_gap"]["value"] == pytest.approx(gap)
        assert metrics["flag_rate"]["value"] == pytest.approx(rows.flags[inside].mean())
        everybody = document["all"]["metrics"]
        assert metrics["auroc_against_all"]["value"] == pytest.approx(
            metrics["auroc"]["value"] - everybody["auroc"]["value"]
        )
        for interval in metrics.values():
            assert interval["low"] <= interval["value"] <= interval["high"]


def test_intervals_are_those_of_the_same_seed_and_widen_when_rows_share_users():
    rows, group = make_rows()
    assert document_of(rows, group, seed=3) == document_of(rows, group, seed=3)
    assert document_of(rows, group, seed=3) != document_of(rows, group, seed=4)
    repeated = Rows(*(np.repeat(values, 4) for values in rows))
    groups = np.repeat(group, 4)
    by_user = document_of(repeated, groups)["all"]["metrics"]["auroc"]
    by_row = document_of(repeated._replace(users=np.arange(groups.size)), groups)["all"]["metrics"]
    width = by_user["high"] - by_user["low"]
    assert width > 1.5 * (by_row["auroc"]["high"] - by_row["auroc"]["low"])


def test_a_group_that_is_off_is_found_and_named():
    rows, group = make_rows(3000, shift=1.0)
    document = document_of(rows, group)
    rest, moved = (one["metrics"] for one in document["by"]["group"]["segments"])
    assert moved["calibration_gap"]["low"] > 0.1
    assert rest["calibration_gap"]["low"] < 0.0 < rest["calibration_gap"]["high"]
    worst = worst_segments(document)
    assert worst["calibration_gap"]["segment"] == "moved"
    assert worst["calibration_gap"]["value"] == moved["calibration_gap_against_all"]["value"]


@pytest.mark.parametrize(
    ("num_rows", "num_churned", "reason"),
    [
        (99, 40, "99 users, 100 needed"),
        (100, 20, None),
        (100, 19, "19 churned, 20 needed"),
        (100, 81, "19 stayed, 20 needed"),
    ],
)
def test_small_segments_say_so_and_give_no_number(num_rows, num_churned, reason):
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.ones(num_churned), np.zeros(num_rows - num_churned)])
    labels = np.concatenate([labels, rng.integers(0, 2, 500)])
    scores = rng.random(labels.size)
    rows = Rows(labels, scores, scores < 0.5, np.arange(labels.size))
    document = document_of(rows, np.arange(labels.size) >= num_rows, ("few", "many"))
    few = document["by"]["group"]["segments"][0]
    assert few["too_small"] == reason
    assert ("metrics" in few) is (reason is None)
    assert (few["rows"], few["churned"]) == (num_rows, num_churned)


def test_rows_of_few_users_are_too_few_however_many():
    rows, group = make_rows()
    document = document_of(rows._replace(users=np.arange(group.size) % 60), group)
    assert {one["too_small"] for one in document["by"]["group"]["segments"]} == {
        "20 users, 100 needed",
        "40 users, 100 needed",
    }
    assert worst_segments(document) == {}


def test_draws_are_bounded_and_unused_segments_left_out():
    rows, group = make_rows(400)
    document = slice_document(
        rows, [Division("group", "", ("rest", "moved", "nobody"), group)], num_samples=10_000
    )
    assert document["num_bootstrap"] == MAX_SAMPLES
    assert len(document["by"]["group"]["segments"]) == 2


def test_arrays_must_fit():
    rows, group = make_rows(300)
    with pytest.raises(ValueError, match="segments of 'group'"):
        document_of(rows, group[1:])
    with pytest.raises(ValueError, match="flags"):
        document_of(rows._replace(flags=rows.flags[1:]), group)


@pytest.mark.parametrize(
    ("shift", "stretch", "slope", "intercept"),
    [(0.0, 1.0, 1.0, 0.0), (0.0, 2.0, 0.5, 0.0), (1.0, 1.0, 1.0, -1.0)],
    ids=["perfect", "too-extreme", "too-high"],
)
def test_the_recalibration_line_of_known_distortions(shift, stretch, slope, intercept):
    rng = np.random.default_rng(5)
    logits = rng.normal(-0.3, 1.0, 20_000)
    labels = rng.random(20_000) < sigmoid(logits)
    table = reliability_table(labels, sigmoid(stretch * logits + shift))
    for name, expected in (("slope", slope), ("intercept", intercept)):
        assert table[name]["value"] == pytest.approx(expected, abs=0.06)
        assert table[name]["low"] < table[name]["value"] < table[name]["high"]
    assert sum(one["rows"] for one in table["bins"]) == 20_000
    assert len(table["bins"]) == 10


def test_slope_and_intercept_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(7)
    covered = {"slope": 0, "intercept": 0}
    for _ in range(200):
        logits = rng.normal(-0.3, 1.0, 500)
        table = reliability_table(rng.random(500) < sigmoid(logits), sigmoid(logits))
        for name, truth in (("slope", 1.0), ("intercept", 0.0)):
            covered[name] += table[name]["low"] < truth < table[name]["high"]
    assert all(180 <= count <= 199 for count in covered.values()), covered


def test_slope_intervals_count_users():
    rng = np.random.default_rng(6)
    logits = rng.normal(size=500)
    labels = rng.random(500) < sigmoid(logits)
    once = reliability_table(labels, sigmoid(logits))["slope"]
    copies = np.repeat(np.arange(500), 4)
    same = reliability_table(labels[copies], sigmoid(logits)[copies], copies)["slope"]
    assert (same["low"], same["high"]) == pytest.approx((once["low"], once["high"]), abs=1e-4)


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [([1, 1, 1], [0.2, 0.4, 0.9]), ([0, 1, 1], [0.5, 0.5, 0.5])],
    ids=["one-class", "one-probability"],
)
def test_an_undefined_line_is_none(labels, probabilities):
    table = reliability_table(labels, probabilities)
    assert (table["slope"], table["intercept"]) == (None, None)
    assert len(table["bins"]) == 1
