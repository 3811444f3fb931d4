"""Judging a trained model: predict, calibrate, choose a threshold, compare with baselines.

Calibration and threshold are fitted on validation rows alone; the test rows are predicted once
and only measured.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from churn_udf.contracts.bundle import CALIBRATION_FILE, METRICS_FILE, THRESHOLDS_FILE
from churn_udf.thresholds import Thresholds, Tier
from trainer.config import TrainConfig
from trainer.data.snapshot import Snapshot
from trainer.data.splits import Splits
from trainer.evaluate import (
    BaselineResult,
    BaselineRows,
    Interval,
    best_model,
    bootstrap_intervals,
    choose_threshold,
    classification_metrics,
    fit_baselines,
    fit_calibrator,
    paired_difference,
    tier_bounds,
)
from trainer.fairness import cutoff_sizes, group_facts, judge_segments, thresholds_by_group
from trainer.judgement import MODEL_NAME, Judgement, report_data, write_predictions
from trainer.progress import Progress
from trainer.report import render_report
from trainer.runs import (
    FIT_FILE,
    GBM_FILE,
    PREDICTIONS_FILE,
    REPORT_FILE,
    Run,
    evaluation_key,
    read_json,
    write_text,
)

FloatArray: TypeAlias = npt.NDArray[np.float64]
PREDICT_ROWS = 4_096
JUDGED_SPLITS = ("valid", "test")


def evaluate_run(
    run: Run, snapshot: Snapshot, splits: Splits, progress: Progress
) -> dict[str, Any]:
    """Judge a fitted run and write metrics, predictions, thresholds and report beside it.

    Args:
        run: A fitted run.
        snapshot: Its rows.
        splits: Its splits.
        progress: Shows steps.

    Returns:
        The content of ``metrics.json``.

    Raises:
        RunError: The run is not fitted.
        ConfigError: A feature that a baseline needs does not exist.
    """
    fit_facts = run.read_json(FIT_FILE)
    logits = {
        name: _predict(run, snapshot, getattr(splits, name), progress, name)
        for name in JUDGED_SPLITS
    }
    judgement = _judge(run.config, snapshot, splits, logits, progress)
    thresholds = _thresholds_of(splits, snapshot, judgement)
    with progress.step("segments"):
        ours = {name: models[MODEL_NAME] for name, models in judgement.probabilities.items()}
        segments = judge_segments(run.config, snapshot, splits, ours, thresholds)
    metrics = {**_metrics_document(run, snapshot, splits, judgement), **segments}
    write_predictions(run.path / PREDICTIONS_FILE, snapshot, splits, judgement)
    write_text(run.path / CALIBRATION_FILE, judgement.calibrator.to_json())
    write_text(run.path / THRESHOLDS_FILE, thresholds.to_json())
    booster = judgement.baselines.get("lightgbm")
    if booster is not None and booster.model_text:
        write_text(run.path / GBM_FILE, booster.model_text)
    with progress.step("report"):
        page = render_report(report_data(run, snapshot, splits, judgement, fit_facts, segments))
        write_text(run.path / REPORT_FILE, page)
    run.write_json(METRICS_FILE, metrics)
    return metrics


def is_evaluated(run: Run) -> bool:
    """Return whether the run's metrics are those of its present settings."""
    found = read_json(run.path / METRICS_FILE)
    key = evaluation_key(run.run_id, run.config)
    return found is not None and found.get("evaluation_key") == key


def _predict(
    run: Run, snapshot: Snapshot, rows: npt.NDArray[np.int64], progress: Progress, name: str
) -> FloatArray:
    """Return (N,) logits of these rows, by the code that scores in the warehouse."""
    from churn_udf.model.runner import ModelRunner

    runner = ModelRunner.load(run.model_dir, device=run.config.fit.device)
    logits = np.empty(len(rows))
    with progress.step(f"predict {name}", total=len(rows)) as step:
        for start in range(0, len(rows), PREDICT_ROWS):
            chunk = rows[start : start + PREDICT_ROWS]
            tokens = runner.tokenizer.encode(*snapshot.texts(chunk))
            values = runner.logits(tokens, snapshot.feature_matrix[chunk])
            logits[start : start + PREDICT_ROWS] = values
            step.advance(len(chunk))
    return logits


def _judge(
    config: TrainConfig,
    snapshot: Snapshot,
    splits: Splits,
    logits: dict[str, FloatArray],
    progress: Progress,
) -> Judgement:
    """Calibrate, fit baselines, choose thresholds and measure with intervals."""
    seed = config.fit.seed
    labels = {name: snapshot.labels[getattr(splits, name)] for name in JUDGED_SPLITS}
    users = {name: np.asarray(snapshot.user_ids(getattr(splits, name))) for name in JUDGED_SPLITS}
    calibrator, calibration = fit_calibrator(
        logits["valid"],
        labels["valid"],
        users["valid"],
        kinds=config.evaluate.calibration,
        seed=seed,
    )
    baselines = _fit_baselines(config, snapshot, splits, progress)
    probabilities = {
        "valid": {
            MODEL_NAME: calibrator.apply(logits["valid"]),
            **{name: result.valid_probabilities for name, result in baselines.items()},
        },
        "test": {
            MODEL_NAME: calibrator.apply(logits["test"]),
            **{name: result.test_probabilities for name, result in baselines.items()},
        },
    }
    chosen = config.thresholds
    thresholds = {
        name: choose_threshold(
            labels["valid"],
            values,
            chosen.strategy,
            chosen.parameter,
            chosen.costs,
            **cutoff_sizes(snapshot, splits.valid),
        )
        for name, values in probabilities["valid"].items()
    }
    group_thresholds = thresholds_by_group(
        config, snapshot, splits, probabilities["valid"][MODEL_NAME], thresholds[MODEL_NAME]
    )
    shared: dict[str, Any] = {
        "num_samples": config.evaluate.num_bootstrap,
        "seed": seed,
        "groups": users["test"],
        "confidence": config.evaluate.confidence,
    }
    with progress.step("intervals", total=1 + len(baselines), unit="comparisons") as step:
        bounds = {name: choice.threshold for name, choice in thresholds.items()}
        intervals = bootstrap_intervals(labels["test"], probabilities["test"], bounds, **shared)
        step.advance()
        differences = {}
        for name in baselines:
            ours, theirs = probabilities["test"][MODEL_NAME], probabilities["test"][name]
            differences[name] = paired_difference(labels["test"], ours, theirs, **shared)
            step.advance()
    return Judgement(
        calibrator=calibrator,
        calibration=calibration,
        thresholds=thresholds,
        probabilities=probabilities,
        logits=logits,
        intervals=intervals,
        differences=differences,
        baselines=baselines,
        group_thresholds=group_thresholds,
    )


def _fit_baselines(
    config: TrainConfig, snapshot: Snapshot, splits: Splits, progress: Progress
) -> dict[str, BaselineResult]:
    """Fit the baselines on the same rows and features."""
    chosen = config.evaluate
    rows = {
        name: BaselineRows(
            features_NF=snapshot.feature_matrix[getattr(splits, name)],
            labels_N=snapshot.labels[getattr(splits, name)],
            user_ids_N=np.asarray(snapshot.user_ids(getattr(splits, name))),
        )
        for name in ("train", *JUDGED_SPLITS)
    }
    with progress.step("baselines", total=len(chosen.baselines), unit="models") as step:
        return fit_baselines(
            rows["train"],
            rows["valid"],
            rows["test"],
            snapshot.feature_names,
            chosen.rfm,
            config.fit.seed,
            chosen.baselines,
            lambda title: step.advance(1, model=title),
        )


def _thresholds_of(splits: Splits, snapshot: Snapshot, judgement: Judgement) -> Thresholds:
    """Return flag and tiers as the bundle stores them."""
    choice = judgement.thresholds[MODEL_NAME]
    base_rate = float(snapshot.labels[splits.valid].mean())
    bounds = tier_bounds(min(choice.threshold, 1.0), base_rate)
    return Thresholds(
        flag_threshold=bounds["flag_threshold"],
        tiers=tuple(Tier(**tier) for tier in bounds["tiers"]),
        strategy=dataclasses.asdict(choice),
        groups=judgement.group_thresholds[0] if judgement.group_thresholds else None,
    )


def _metrics_document(
    run: Run, snapshot: Snapshot, splits: Splits, judgement: Judgement
) -> dict[str, Any]:
    """Return the content of ``metrics.json``; free of times, so that equal runs are equal."""
    labels = {name: snapshot.labels[getattr(splits, name)] for name in JUDGED_SPLITS}
    valid = {
        name: classification_metrics(labels["valid"], values, judgement.thresholds[name].threshold)
        for name, values in judgement.probabilities["valid"].items()
    }
    baselines = {name: result.facts for name, result in judgement.baselines.items()}
    document: dict[str, Any] = {
        "run_id": run.run_id,
        "snapshot_id": run.snapshot_id,
        "evaluation_key": evaluation_key(run.run_id, run.config),
        "model": MODEL_NAME,
        "encoder": run.config.fit.encoder,
        "seed": run.config.fit.seed,
        "valid_mode": splits.valid_mode,
        "splits": splits.facts["splits"],
        "confidence": run.config.evaluate.confidence,
        "num_bootstrap": run.config.evaluate.num_bootstrap,
        "calibration": judgement.calibration,
        "threshold": dataclasses.asdict(judgement.thresholds[MODEL_NAME]),
        "group_thresholds": group_facts(judgement.group_thresholds),
        "test": {name: _as_mappings(table) for name, table in judgement.intervals.items()},
        "valid": valid,
        "differences": {name: _as_mappings(table) for name, table in judgement.differences.items()},
        "baselines": baselines,
    }
    if baselines:
        document["best_baseline"] = best_model(judgement.intervals, exclude=MODEL_NAME)
    return document


def _as_mappings(table: dict[str, Interval]) -> dict[str, dict[str, float]]:
    """Return intervals as JSON-ready mappings."""
    return {name: interval._asdict() for name, interval in table.items()}
