"""Judging a trained model: predict, calibrate, choose a threshold, compare with baselines.

Calibration and threshold are fitted on validation rows alone; the test rows are predicted once
and only measured.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from churn_udf.calibration import Calibrator
from churn_udf.contracts.bundle import CALIBRATION_FILE, METRICS_FILE, THRESHOLDS_FILE
from churn_udf.thresholds import Thresholds, Tier
from trainer.candidates import (
    JUDGED_SPLITS,
    Candidates,
    find_candidates,
    shipped_calibrator,
    shipped_logits,
    write_shipped,
)
from trainer.config import TrainConfig
from trainer.data.snapshot import Snapshot
from trainer.data.splits import Splits
from trainer.evaluate import (
    Interval,
    best_model,
    bootstrap_intervals,
    choose_threshold,
    classification_metrics,
    paired_difference,
    tier_bounds,
)
from trainer.fairness import cutoff_sizes, group_facts, judge_segments, thresholds_by_group
from trainer.fit.refit import Fits
from trainer.judgement import Judgement, report_data, write_predictions
from trainer.progress import Progress
from trainer.report import render_report
from trainer.runs import (
    FIT_FILE,
    PREDICTIONS_FILE,
    REPORT_FILE,
    SHIPPED_FILE,
    Run,
    evaluation_key,
    read_json,
    write_text,
)

SHIPPED_SAMPLE = 512


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
    fits = Fits.of(run.path, fit_facts["facts"], fit_facts["history"])
    found = find_candidates(run.config, snapshot, splits, fits, progress)
    judgement = _judge(run.config, snapshot, splits, found, progress)
    thresholds = _thresholds_of(splits, snapshot, judgement)
    with progress.step("segments"):
        ours = {name: models[judgement.model] for name, models in judgement.probabilities.items()}
        segments = judge_segments(run.config, snapshot, splits, ours, thresholds)
    metrics = {**_metrics_document(run, snapshot, splits, judgement), **segments}
    write_predictions(run.path / PREDICTIONS_FILE, snapshot, splits, judgement)
    with progress.step("final fit"):
        write_shipped(run, snapshot, splits, found, fits)
        calibrator = shipped_calibrator(run, snapshot, splits, found.chosen, fits)
    write_text(run.path / CALIBRATION_FILE, calibrator.to_json())
    metrics["shipped_calibration"] = {"kind": calibrator.kind, "offset": calibrator.offset}
    _write_shipped_sample(run, snapshot, splits, calibrator)
    write_text(run.path / THRESHOLDS_FILE, thresholds.to_json())
    with progress.step("report"):
        page = render_report(
            report_data(run, snapshot, splits, judgement, fit_facts, segments, calibrator)
        )
        write_text(run.path / REPORT_FILE, page)
    run.write_json(METRICS_FILE, metrics)
    return metrics


def is_evaluated(run: Run) -> bool:
    """Return whether the run's metrics are those of its present settings."""
    found = read_json(run.path / METRICS_FILE)
    key = evaluation_key(run.run_id, run.config)
    return found is not None and found.get("evaluation_key") == key


def _judge(
    config: TrainConfig, snapshot: Snapshot, splits: Splits, found: Candidates, progress: Progress
) -> Judgement:
    """Choose thresholds and measure with intervals."""
    model = found.choice.ensemble.kind
    labels = {name: snapshot.labels[getattr(splits, name)] for name in JUDGED_SPLITS}
    reported = {name: found.baselines[name] for name in config.evaluate.baselines}
    probabilities = {
        name: {
            **{kind: item.probabilities[name] for kind, item in found.by_kind.items()},
            **{
                title: result.valid_probabilities if name == "valid" else result.test_probabilities
                for title, result in reported.items()
            },
        }
        for name in JUDGED_SPLITS
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
        config, snapshot, splits, probabilities["valid"][model], thresholds[model]
    )
    shared: dict[str, Any] = {
        "num_samples": config.evaluate.num_bootstrap,
        "seed": config.fit.seed,
        "groups": np.asarray(snapshot.user_ids(splits.test)),
        "confidence": config.evaluate.confidence,
    }
    tested = probabilities["test"]
    with progress.step("intervals", total=len(tested), unit="comparisons") as step:
        bounds = {name: choice.threshold for name, choice in thresholds.items()}
        intervals = bootstrap_intervals(labels["test"], tested, bounds, **shared)
        step.advance()
        differences = {}
        for name, theirs in tested.items():
            if name != model:
                differences[name] = paired_difference(
                    labels["test"], tested[model], theirs, **shared
                )
                step.advance()
    return Judgement(
        model=model,
        candidates=found,
        thresholds=thresholds,
        probabilities=probabilities,
        intervals=intervals,
        differences=differences,
        group_thresholds=group_thresholds,
    )


def _write_shipped_sample(
    run: Run, snapshot: Snapshot, splits: Splits, calibrator: Calibrator
) -> None:
    """Write what ships says of some test rows, for packaging to compare the bundle with."""
    rows = splits.test[:SHIPPED_SAMPLE]
    probabilities = calibrator.apply(shipped_logits(run, snapshot, rows))
    document = {"rows": rows.tolist(), "probabilities": probabilities.tolist()}
    run.write_json(SHIPPED_FILE, document)


def _thresholds_of(splits: Splits, snapshot: Snapshot, judgement: Judgement) -> Thresholds:
    """Return flag and tiers as the bundle stores them."""
    choice = judgement.thresholds[judgement.model]
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
        "model": judgement.model,
        "ensemble": judgement.candidates.choice.table,
        "encoder": run.config.fit.encoder,
        "seed": run.config.fit.seed,
        "valid_mode": splits.valid_mode,
        "test_mode": splits.test_mode,
        "splits": splits.facts["splits"],
        "fits": splits.facts["fits"],
        "confidence": run.config.evaluate.confidence,
        "num_bootstrap": run.config.evaluate.num_bootstrap,
        "calibration": judgement.calibration,
        "threshold": dataclasses.asdict(judgement.thresholds[judgement.model]),
        "group_thresholds": group_facts(judgement.group_thresholds),
        "test": {name: _as_mappings(table) for name, table in judgement.intervals.items()},
        "valid": valid,
        "differences": {name: _as_mappings(table) for name, table in judgement.differences.items()},
        "baselines": baselines,
    }
    if baselines:
        rivals = {name: judgement.intervals[name] for name in baselines}
        document["best_baseline"] = best_model(rivals)
    return document


def _as_mappings(table: dict[str, Interval]) -> dict[str, dict[str, float]]:
    """Return intervals as JSON-ready mappings."""
    return {name: interval._asdict() for name, interval in table.items()}
