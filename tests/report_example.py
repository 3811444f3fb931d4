"""A small ReportData with real metrics, for the report's unit and browser tests."""

import numpy as np

from churn_udf.calibration import sigmoid
from trainer.evaluate import (
    BASELINE_TITLES,
    Division,
    Rows,
    bootstrap_intervals,
    choose_threshold,
    fit_calibrator,
    paired_difference,
    slice_document,
    tier_bounds,
)
from trainer.report import FeatureImportance, ReportData, SplitFacts

MODEL = "bert"


def make_probabilities(num_rows=400, seed=0):
    """Labels and the probabilities of a model and two baselines, the model the best."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=num_rows)
    labels = (rng.random(num_rows) < sigmoid(1.6 * risk - 1.0)).astype(int)
    noisy = {MODEL: 0.1, "recency": 2.0, "lightgbm": 1.0}
    probabilities = {
        name: sigmoid(1.5 * (risk + noise * rng.normal(size=num_rows)) - 1.0)
        for name, noise in noisy.items()
    }
    probabilities["base_rate"] = np.full(num_rows, labels.mean())
    return labels, probabilities


def make_segments(labels, probabilities, threshold):
    """Two measured segments and a small one, and one cutoff of each split."""
    count = len(labels)
    rows = Rows(labels, probabilities, np.asarray(probabilities) >= threshold, np.arange(count))
    segments = np.where(np.arange(count) < 10, 2, np.arange(count) % 2)
    names = ("under 30 & new", "30 and more, with quite a long name for a segment", "unknown")
    tenure = Division("tenure", "feature tenure_days", names, segments)
    cutoff = Division("cutoff", "cutoff", ("2024-04-01",), np.zeros(count))
    found = slice_document(rows, [tenure, cutoff], num_samples=50)
    cutoffs = found["by"].pop("cutoff")["segments"]
    at_cutoff = {"note": None, "all": found["all"], "cutoffs": cutoffs}
    return {"slices": found, "reliability": {"valid": at_cutoff, "test": at_cutoff}}


def make_report(labels=None, probabilities=None, **overrides):
    """Report data as the pipeline makes it; any field can be overridden."""
    if labels is None or probabilities is None:
        labels, probabilities = make_probabilities()
    model = overrides.get("model_name", MODEL)
    choice = choose_threshold(labels, probabilities[model])
    users = np.arange(len(labels))
    ours = probabilities[model]
    logits = np.log(ours) - np.log1p(-ours)
    fields = {
        "title": "Churn model of a test",
        "model_name": model,
        "labels": labels,
        "probabilities": probabilities,
        "metrics": bootstrap_intervals(
            labels, probabilities, dict.fromkeys(probabilities, choice.threshold), 100, 0, users
        ),
        "differences": {
            name: paired_difference(labels, ours, values, 100, 0, users)
            for name, values in probabilities.items()
            if name != model
        },
        "threshold": choice.threshold,
        "threshold_reason": choice.reason,
        "titles": {MODEL: "BERT (compact)", **BASELINE_TITLES},
        "splits": [
            SplitFacts(name=name, cutoffs=cutoffs, num_rows=1234, num_users=1000, base_rate=0.25)
            for name, cutoffs in (
                ("train", ["2024-01-01", "2024-02-01"]),
                ("valid", ["2024-03-01"]),
                ("test", ["2024-04-01"]),
            )
        ],
        "tiers": tier_bounds(choice.threshold, 0.2)["tiers"],
        "calibration": fit_calibrator(logits, labels, users)[1],
        "history": [
            {"stage": "pretrain", "step": step, "train_loss": 5.0 / (1 + step)}
            for step in range(40)
        ]
        + [
            {
                "stage": "finetune",
                "epoch": epoch,
                "train_loss": 0.6 - 0.05 * epoch,
                "valid_loss": 0.6 - 0.03 * epoch,
                "valid_auroc": 0.7 + 0.02 * epoch,
                "seconds": 10.0,
            }
            for epoch in range(5)
        ],
        "feature_importance": [
            FeatureImportance(
                name=f"a_feature_with_a_long_name_{index}",
                description="Days since something happened.",
                value=1.0 / (1 + index),
            )
            for index in range(12)
        ],
        "importance_source": "LightGBM, share of the total gain",
        "run_facts": {"run_id": "r1", "command": "churn-train run " + "x" * 120},
        "data_facts": {"snapshot_id": "0123456789abcdef", "rows": 123456, "gap": None},
        "model_facts": {"parameters": 3456789, "versions": {"torch": "2.13.0"}, "seed": 0},
        "warnings": ["The base rate moved."],
        **make_segments(labels, ours, choice.threshold),
    }
    return ReportData(**(fields | overrides))
