"""The models that may score: members fitted, combined, chosen, calibrated, and put into files.

Every member exists up to three times (see ``trainer.fit.refit``): fitted on training rows, which
validation rows choose and calibrate on; fitted on every label known at the test cutoff, which the
test judges; fitted on every label known at the score cutoff, which scores.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from churn_udf.calibration import Calibrator
from churn_udf.contracts.bundle import ENSEMBLE_FILE, MEMBER_FILES
from churn_udf.model.ensemble import BERT, GBM, STACK, Ensemble
from trainer.config import TrainConfig
from trainer.data.snapshot import Snapshot
from trainer.data.splits import Splits, label_ends
from trainer.evaluate import BaselineResult, BaselineRows, fit_baselines, fit_calibrator
from trainer.evaluate.base_rates import base_rate_offset
from trainer.evaluate.stacking import EnsembleChoice, choose_ensemble
from trainer.fit.config import NO_REWEIGHTING
from trainer.fit.refit import Fits, planned_refits
from trainer.fit.reweighting import example_weights
from trainer.progress import Progress
from trainer.runs import Run

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
PREDICT_ROWS = 4_096
JUDGED_SPLITS = ("valid", "test")
BASELINE_OF_MEMBER = {GBM: "lightgbm"} | {
    name: name for name in ("logistic", "rfm_logistic", "bg_nbd")
}
"""Members that are baselines too, and the name of that baseline."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """One kind of ensemble, calibrated on validation rows."""

    ensemble: Ensemble
    calibrator: Calibrator
    """With the offset for the test cutoff."""
    calibration: dict[str, Any]
    """Table of ``fit_calibrator``."""
    logits: dict[str, FloatArray]
    """Split -> (N,) raw logits: validation rows by the first fit, test rows by the second."""
    probabilities: dict[str, FloatArray]
    """Split -> (N,) calibrated; on validation rows without the offset."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidates:
    """Everything that may score, and the choice among it."""

    choice: EnsembleChoice
    by_kind: dict[str, Candidate]
    """The reported kinds; the chosen one first."""
    baselines: dict[str, BaselineResult]
    """Members among them, and those asked for by ``evaluate.baselines``."""

    @property
    def chosen(self) -> Candidate:
        """The one that scores."""
        return self.by_kind[self.choice.ensemble.kind]


def find_candidates(
    config: TrainConfig, snapshot: Snapshot, splits: Splits, fits: Fits, progress: Progress
) -> Candidates:
    """Fit the members that read features, choose the ensemble and calibrate every kind.

    Args:
        config: Settings.
        snapshot: The rows.
        splits: Its splits.
        fits: The trained encoders.
        progress: Shows steps.

    Raises:
        ConfigError: A feature that a baseline needs does not exist, or no kind is possible.
    """
    baselines = _fit_baselines(config, snapshot, splits, progress)
    logits: dict[str, dict[str, FloatArray]] = {name: {} for name in JUDGED_SPLITS}
    for member in config.ensemble.members:
        if member == BERT:
            for name, model in {"valid": fits.first, "test": fits.judged}.items():
                rows = getattr(splits, name)
                logits[name][BERT] = predict(config, snapshot, model, rows, progress, name)
        else:
            result = baselines[BASELINE_OF_MEMBER[member]]
            logits["valid"][member] = result.valid_logits
            logits["test"][member] = result.test_logits
    choice = choose_ensemble(
        logits["valid"],
        snapshot.labels[splits.valid],
        np.asarray(snapshot.user_ids(splits.valid)),
        kinds=config.ensemble.kinds,
        shrinkage=config.ensemble.shrinkage,
        seed=config.fit.seed,
    )
    chosen = choice.ensemble.kind
    reported = [kind for kind in (chosen, STACK, BERT) if kind in choice.by_kind]
    return Candidates(
        choice=choice,
        by_kind={
            kind: _calibrate(config, snapshot, splits, choice.by_kind[kind], logits)
            for kind in dict.fromkeys(reported)
        },
        baselines=baselines,
    )


def predict(
    config: TrainConfig,
    snapshot: Snapshot,
    model_dir: Path,
    rows: IntArray,
    progress: Progress,
    name: str,
) -> FloatArray:
    """Return (N,) logits of the encoder's model, by the code that scores in the warehouse."""
    from churn_udf.model.runner import ModelRunner

    runner = ModelRunner.load(model_dir, device=config.fit.device)
    logits = np.empty(len(rows))
    with progress.step(f"predict {name}", total=len(rows)) as step:
        for start in range(0, len(rows), PREDICT_ROWS):
            chunk = rows[start : start + PREDICT_ROWS]
            tokens = runner.tokenizer.encode(*snapshot.texts(chunk))
            values = runner.logits(tokens, snapshot.feature_matrix[chunk])
            logits[start : start + PREDICT_ROWS] = values
            step.advance(len(chunk))
    return logits


def write_shipped(
    run: Run, snapshot: Snapshot, splits: Splits, found: Candidates, fits: Fits
) -> None:
    """Put what scores into ``run.model_dir``: every member, fitted on the newest labels.

    Args:
        run: The run.
        snapshot: Its rows.
        splits: Its splits.
        found: Choice and recipes.
        fits: The trained encoders.
    """
    shutil.rmtree(run.model_dir, ignore_errors=True)
    shutil.copytree(fits.shipped, run.model_dir)
    rows = list(planned_refits(splits, run.config.fit.refit).values())[-1:]
    for member in run.config.ensemble.members:
        if member == BERT:
            continue
        result = found.baselines[BASELINE_OF_MEMBER[member]]
        text = result.model_text
        if rows and not np.array_equal(rows[0], splits.refit):
            newest = training_rows(run.config, snapshot, splits, rows[0])
            text = result.recipe.fit(newest).model_text
        assert text is not None
        (run.model_dir / MEMBER_FILES[member]).write_text(text, encoding="utf-8")
    ensemble = found.choice.ensemble.to_json()
    (run.model_dir / ENSEMBLE_FILE).write_text(ensemble, encoding="utf-8")


def shipped_calibrator(
    run: Run, snapshot: Snapshot, splits: Splits, found: Candidate, fits: Fits
) -> Calibrator:
    """Return the calibrator that ships; ``write_shipped`` comes first.

    A model that has learned from the test labels is calibrated on validation and test rows
    together, as far as their labels are known at the score cutoff: both were predicted by fits
    that did not know them. Otherwise it is the calibrator that the test judged.
    """
    config = run.config
    if fits.shipped == fits.judged:
        return found.calibrator
    rows = np.concatenate([getattr(splits, name) for name in JUDGED_SPLITS])
    logits = np.concatenate([found.logits[name] for name in JUDGED_SPLITS])
    is_known = label_ends(snapshot)[rows] <= np.datetime64(snapshot.document["score_cutoff_date"])
    rows, logits = rows[is_known], logits[is_known]
    calibrator, _ = fit_calibrator(
        logits,
        snapshot.labels[rows],
        np.asarray(snapshot.user_ids(rows)),
        kinds=(found.calibrator.kind,),
        seed=config.fit.seed,
    )
    upcoming = np.empty(0)
    if config.evaluate.base_rate == "em":
        newest = np.flatnonzero(snapshot.cutoff_dates == snapshot.cutoff_dates.max())
        upcoming = shipped_logits(run, snapshot, newest)
    offset = base_rate_offset(
        config.evaluate.base_rate, calibrator, logits, snapshot.labels[rows], upcoming
    )
    return dataclasses.replace(calibrator, offset=offset)


def training_rows(
    config: TrainConfig, snapshot: Snapshot, splits: Splits, rows: IntArray
) -> BaselineRows:
    """Return rows to fit on, weighted where ``fit.group_reweighting`` asks for it."""
    found = baseline_rows(snapshot, rows)
    if config.fit.group_reweighting == NO_REWEIGHTING:
        return found
    weights = example_weights(snapshot, dataclasses.replace(splits, train=rows), config.fit)
    return dataclasses.replace(found, weights_N=weights[rows])


def baseline_rows(snapshot: Snapshot, rows: IntArray) -> BaselineRows:
    """Return features, labels and users of labelled rows."""
    return BaselineRows(
        features_NF=snapshot.feature_matrix[rows],
        labels_N=snapshot.labels[rows],
        user_ids_N=np.asarray(snapshot.user_ids(rows)),
    )


def shipped_logits(run: Run, snapshot: Snapshot, rows: IntArray) -> FloatArray:
    """Return (N,) raw logits of rows by what ships, by the code that scores in the warehouse."""
    from churn_udf.model.ensemble import EnsembleRunner

    device = run.config.fit.device
    runner = EnsembleRunner.load(run.model_dir, snapshot.features, device=device)
    parts = np.array_split(rows, max(1, len(rows) // PREDICT_ROWS))
    return np.concatenate(
        [runner.run(*snapshot.texts(part), snapshot.feature_matrix[part]).logits for part in parts]
    )


def _calibrate(
    config: TrainConfig,
    snapshot: Snapshot,
    splits: Splits,
    ensemble: Ensemble,
    logits: Mapping[str, Mapping[str, FloatArray]],
) -> Candidate:
    """Combine the members' logits and calibrate the sum on validation rows."""
    combined = {name: ensemble.combine(logits[name]) for name in JUDGED_SPLITS}
    labels = snapshot.labels[splits.valid]
    calibrator, table = fit_calibrator(
        combined["valid"],
        labels,
        np.asarray(snapshot.user_ids(splits.valid)),
        kinds=config.evaluate.calibration,
        seed=config.fit.seed,
    )
    offset = base_rate_offset(
        config.evaluate.base_rate, calibrator, combined["valid"], labels, combined["test"]
    )
    shifted = dataclasses.replace(calibrator, offset=offset)
    return Candidate(
        ensemble=ensemble,
        calibrator=shifted,
        calibration={**table, "offset": offset, "base_rate_kind": config.evaluate.base_rate},
        logits=combined,
        probabilities={
            "valid": calibrator.apply(combined["valid"]),
            "test": shifted.apply(combined["test"]),
        },
    )


def _fit_baselines(
    config: TrainConfig, snapshot: Snapshot, splits: Splits, progress: Progress
) -> dict[str, BaselineResult]:
    """Fit the baselines asked for and those that are members, on the same rows and features."""
    members = [BASELINE_OF_MEMBER[name] for name in config.ensemble.members if name != BERT]
    wanted = list(dict.fromkeys([*config.evaluate.baselines, *members]))
    has_refit = config.fit.refit != "none" and not np.array_equal(splits.refit, splits.train)
    with progress.step("baselines", total=len(wanted), unit="models") as step:
        return fit_baselines(
            training_rows(config, snapshot, splits, splits.train),
            baseline_rows(snapshot, splits.valid),
            baseline_rows(snapshot, splits.test),
            snapshot.feature_names,
            config.evaluate.rfm,
            config.fit.seed,
            wanted,
            lambda title: step.advance(1, model=title),
            refit=training_rows(config, snapshot, splits, splits.refit) if has_refit else None,
            base_rate=config.evaluate.base_rate,
            horizon_days=float(snapshot.model_settings.horizon_days),
            gap_days=float(snapshot.model_settings.gap_days),
        )
