"""Example weights: what they make equal, and that training with them narrows a gap."""

import dataclasses
import datetime

import numpy as np
import pyarrow as pa
import pytest

from churn_udf.calibration import sigmoid
from churn_udf.contracts.bundle import FeatureSpec
from churn_udf.contracts.snapshot import snapshot_schema
from churn_udf.model.runner import ModelRunner
from trainer.data.export import write_snapshot
from trainer.data.splits import SplitConfig, make_splits
from trainer.data.synthetic import SETTINGS
from trainer.errors import ConfigError
from trainer.evaluate import classification_metrics
from trainer.fit.config import EQUAL_SIZE, KAMIRAN_CALDERS, FitConfig
from trainer.fit.loop import fit_model
from trainer.fit.reweighting import MAX_WEIGHT, example_weights, group_weights
from trainer.progress import Progress

SMALL = FitConfig(
    hidden_size=16,
    num_layers=1,
    max_tokens=32,
    max_review_tokens=8,
    min_word_count=1,
    pretrain_epochs=0,
    numeric_epochs=25,
    patience=50,
    average_decay=0.9,
    numeric_learning_rate=0.01,
    epochs=1,
    max_epoch_examples=64,
    min_examples=0,
    device="cpu",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One user in 25 is of the few: they churn more often, and by the opposite sign."""
    rng = np.random.default_rng(0)
    features = [FeatureSpec(name=name, group="frequency") for name in ("signal", "is_few")]
    schema = snapshot_schema(["signal", "is_few"])
    first = datetime.date(2024, 1, 1)
    dates = [first + datetime.timedelta(days=28 * index) for index in range(8)]
    batches, num_users = [], 1200
    is_few = (rng.random(num_users) < 0.04).astype(float)
    for number, date in enumerate(dates):
        signal = rng.normal(size=num_users)
        risk = np.where(is_few == 1, 0.5 - 1.5 * signal, -1.0 + 1.5 * signal)
        churned = rng.random(num_users) < sigmoid(risk)
        is_mature = number < 7
        columns = [
            pa.array([f"u{index:05d}" for index in range(num_users)]),
            pa.array([date] * num_users, pa.date32()),
            pa.array(["known visits"] * num_users),
            pa.array([""] * num_users),
            pa.array(signal),
            pa.array(is_few),
            pa.array([is_mature] * num_users),
            pa.array(churned.tolist() if is_mature else [None] * num_users, pa.bool_()),
            pa.array([f"{index}:{date}" for index in range(num_users)]),
        ]
        batches.append(pa.RecordBatch.from_arrays(columns, schema=schema))
    snapshot = write_snapshot(
        batches,
        features=features,
        settings=SETTINGS,
        score_cutoff_date=dates[-1],
        provenance={},
        snapshots_dir=tmp_path_factory.mktemp("snapshots"),
    )
    return snapshot, make_splits(snapshot, SplitConfig(), seed=0)


def test_equal_size_gives_every_group_the_same_weight():
    groups = np.repeat([0, 1, 2], [700, 250, 50])
    labels = np.random.default_rng(0).integers(0, 2, 1000).astype(float)
    weights = group_weights(groups, labels, EQUAL_SIZE)
    assert weights.mean() == pytest.approx(1.0)
    totals = [weights[groups == group].sum() for group in range(3)]
    assert totals == pytest.approx([1000 / 3] * 3)


def test_kamiran_calders_makes_group_and_label_independent():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, 3000)
    labels = (rng.random(3000) < np.array([0.1, 0.3, 0.7])[groups]).astype(float)
    weights = group_weights(groups, labels, KAMIRAN_CALDERS)
    rates = [np.average(labels[groups == g], weights=weights[groups == g]) for g in range(3)]
    assert rates == pytest.approx([labels.mean()] * 3)
    assert weights.mean() == pytest.approx(1.0)
    sizes = [weights[groups == g].sum() for g in range(3)]
    assert sizes == pytest.approx(np.bincount(groups))


@pytest.mark.parametrize("rule", [EQUAL_SIZE, KAMIRAN_CALDERS])
def test_one_row_does_not_drive_the_training(rule):
    groups = np.zeros(10_000, dtype=np.int64)
    groups[0] = 1
    labels = (np.arange(10_000) % 10 == 0).astype(float)
    weights = group_weights(groups, labels, rule)
    assert weights.max() / np.median(weights) <= 2 * MAX_WEIGHT


def test_weights_are_one_outside_training_and_by_default(data):
    snapshot, splits = data
    assert (example_weights(snapshot, splits, SMALL) == 1.0).all()
    config = dataclasses.replace(SMALL, group_reweighting="is_few")
    weights = example_weights(snapshot, splits, config)
    elsewhere = np.setdiff1d(np.arange(snapshot.num_rows), splits.train)
    assert (weights[elsewhere] == 1.0).all()
    assert np.unique(weights[splits.train]).size == 4
    assert weights[splits.train].mean() == pytest.approx(1.0)


def test_unknown_slice_and_rule_are_refused(data):
    with pytest.raises(ConfigError, match="'town' is unknown"):
        example_weights(*data, dataclasses.replace(SMALL, group_reweighting="town"))
    with pytest.raises(ConfigError, match="kamiran_calders"):
        dataclasses.replace(SMALL, group_reweighting_rule="fair")


def judge(data, config, folder):
    """AUROC among the few and the rest, and by how much more the few are said to churn."""
    snapshot, splits = data
    result = fit_model(snapshot, splits, config, folder, progress=Progress(quiet=True))
    runner = ModelRunner.load(result.model_dir, device="cpu")
    rows = splits.test
    tokens = runner.tokenizer.encode(*snapshot.texts(rows))
    said = sigmoid(runner.logits(tokens, snapshot.feature_matrix[rows]))
    few = snapshot.feature_matrix[rows, 1] == 1
    labels = snapshot.labels[rows]
    auroc = [classification_metrics(labels[g], said[g], 0.5)["auroc"] for g in (few, ~few)]
    return auroc, said[few].mean() - said[~few].mean()


def test_equal_size_narrows_the_gap_in_ranking_that_a_short_training_leaves(data, tmp_path):
    short = dataclasses.replace(SMALL, numeric_epochs=2)
    plain, _ = judge(data, short, tmp_path / "plain")
    config = dataclasses.replace(
        short, group_reweighting="is_few", group_reweighting_rule=EQUAL_SIZE
    )
    equal, _ = judge(data, config, tmp_path / "equal")
    assert plain[1] - plain[0] > 0.2
    assert equal[1] - equal[0] < 0.5 * (plain[1] - plain[0])
    assert equal[1] > plain[1] - 0.02


def test_kamiran_calders_narrows_the_gap_in_how_likely_the_groups_are_said_to_churn(data, tmp_path):
    _, gap = judge(data, SMALL, tmp_path / "plain")
    config = dataclasses.replace(SMALL, group_reweighting="is_few")
    _, independent_gap = judge(data, config, tmp_path / "independent")
    assert gap > 0.2
    assert abs(independent_gap) < 0.5 * gap
