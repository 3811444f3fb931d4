"""churn_model_performance and churn_calibration_bins against scikit-learn and the trainer."""

from __future__ import annotations

import datetime
import math

import numpy as np
import pyarrow as pa
import pytest

from trainer.evaluate.curves import calibration_bins
from trainer.evaluate.metrics import classification_metrics

MARTS = "churn_calibration_bins churn_model_performance"
CUTOFF = datetime.date(2024, 3, 1)
THRESHOLD = 0.5
NUM_RANDOM = 40
OF_TRAINER = {
    "base_rate": "base_rate",
    "auroc": "auroc",
    "average_precision": "average_precision",
    "brier_score": "brier_score",
    "log_loss": "log_loss",
    "calibration_error": "expected_calibration_error",
    "lift_top_decile": "lift_at_10pct",
    "flagged_precision": "precision",
    "flagged_recall": "recall",
}


def random_group(generator, size: int):
    """Draw labels, probabilities with anything from no tie to one value, and label changes."""
    probabilities = generator.beta(*generator.uniform(0.3, 3.0, 2), size)
    levels = generator.choice([0, 0, 1, 2, 5, 20, 100])
    if levels:
        probabilities = np.round(probabilities * levels) / levels
    if generator.random() < 0.3:
        probabilities = probabilities ** generator.choice([0.01, 40.0])  # close to 1, close to 0
    labels = generator.random(size) < np.clip(probabilities + generator.normal(0, 0.2), 0.05, 0.95)
    return labels, probabilities, generator.choice([0, 0, 0, 1, 2], size)


def groups():
    """Name to (N,) labels, probabilities in [0, 1] and label changes."""
    generator = np.random.default_rng(7)
    found = {
        f"random {number}": random_group(generator, int(generator.integers(1, 300)))
        for number in range(NUM_RANDOM)
    }
    found |= {f"size {size}": random_group(generator, size) for size in (1, 2, 3, 9, 10, 11)}
    labels, probabilities, changes = random_group(generator, 60)
    found["all churned"] = (np.ones(60, bool), probabilities, changes)
    found["all stayed"] = (np.zeros(60, bool), probabilities, changes)
    found["one value"] = (labels, np.full(60, 0.3), changes)
    found["certain"] = (labels, np.where(np.arange(60) % 2, 1.0, 0.0), changes)
    found["tiny probabilities"] = (labels, 10.0 ** -np.arange(1.0, 61.0), changes)
    found["nobody flagged"] = (labels, probabilities * 0.4, changes)
    big = generator.beta(0.8, 4.0, 200_000)
    churned = generator.random(big.size) < big
    found["200,000 rows"] = (churned, big, np.zeros(big.size, int))
    found["200,000 rows, 50 levels"] = (churned, np.round(big * 50) / 50, np.ones(big.size, int))
    return found


def outcomes_table(cases) -> pa.Table:
    """Make the rows of churn_score_outcomes, shuffled."""
    tables = []
    for name, (labels, probabilities, changes) in cases.items():
        size = labels.size
        tables.append(
            pa.table(
                {
                    "user_id": [f"u{number}" for number in range(size)],
                    "bundle_id": pa.array([name]).take(pa.array([0] * size)),
                    "churn_probability": probabilities,
                    "label_change_count": pa.array(changes, pa.int32()),
                    "is_flagged": probabilities >= THRESHOLD,
                    "is_churned": labels,
                    "is_out_of_time": pa.nulls(size, pa.bool_()),
                    "cutoff_date": pa.array([CUTOFF] * size),
                }
            )
        )
    table = pa.concat_tables(tables)
    return table.take(np.random.default_rng(1).permutation(table.num_rows))


@pytest.fixture(scope="module")
def cases():
    return groups()


@pytest.fixture(scope="module")
def project(module_dbt_project, cases):
    project = module_dbt_project
    project.load("churn_score_outcomes", outcomes_table(cases))
    project.vars = {"churn__events_path": "none.parquet"}
    project.run(select=MARTS)
    return project


@pytest.fixture(scope="module")
def performance(project):
    rows = project.table("select * from churn_model_performance").to_pylist()
    return {row["bundle_id"]: row for row in rows}


def near(value):
    """Match null by null, a number by one within 1e-9."""
    return pytest.approx(value, abs=1e-9, rel=0.0) if value is not None else None


def or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def test_every_number_is_that_of_the_trainer(cases, performance):
    assert performance.keys() == cases.keys()
    for name, (labels, probabilities, changes) in cases.items():
        found = performance[name]
        offline = classification_metrics(labels.astype(float), probabilities, THRESHOLD)
        expected = {column: or_none(offline[metric]) for column, metric in OF_TRAINER.items()}
        flagged = probabilities >= THRESHOLD
        if not flagged.any():
            expected["flagged_precision"] = None
        if not labels.any():
            expected["flagged_recall"] = None
        expected |= {
            "user_count": labels.size,
            "churned_count": labels.sum(),
            "flagged_count": flagged.sum(),
            "changed_label_count": np.count_nonzero(changes),
            "mean_probability": math.fsum(probabilities) / labels.size,
        }
        for column, value in expected.items():
            assert found[column] == near(value), (name, column)


def test_ranking_and_proper_scores_are_those_of_scikit_learn(cases, performance):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with [train]")
    for name, (labels, probabilities, _) in cases.items():
        found = performance[name]
        expected = {
            "brier_score": metrics.brier_score_loss(labels, probabilities, pos_label=True),
            "log_loss": metrics.log_loss(labels, probabilities, labels=[False, True]),
        }
        if labels.any():
            expected["average_precision"] = metrics.average_precision_score(labels, probabilities)
        if labels.any() and not labels.all():
            expected["auroc"] = metrics.roc_auc_score(labels, probabilities)
        for column, value in expected.items():
            assert found[column] == near(value), (name, column)


def test_bins_are_those_of_the_trainer(cases, project):
    rows = project.table("select * from churn_calibration_bins order by bin_number").to_pylist()
    for name, (labels, probabilities, _) in cases.items():
        found = [row for row in rows if row["bundle_id"] == name]
        expected = calibration_bins(labels.astype(float), probabilities)
        assert [row["user_count"] for row in found] == [one.num_rows for one in expected], name
        for row, one in zip(found, expected, strict=True):
            assert row["mean_probability"] == near(one.mean_probability)
            assert row["observed_rate"] == near(one.churn_rate)
            inside = (probabilities >= row["bin_low"]) & (probabilities <= row["bin_high"])
            assert inside.sum() == row["user_count"], name


def test_another_order_of_the_rows_changes_no_digit(cases, project):
    tables = ("churn_model_performance", "churn_calibration_bins")
    before = [project.query(f"select * from {table} order by all") for table in tables]
    reversed_cases = dict(reversed(cases.items()))
    project.load("churn_score_outcomes", outcomes_table(reversed_cases))
    project.run(select=MARTS)
    after = [project.query(f"select * from {table} order by all") for table in tables]
    assert after == before
