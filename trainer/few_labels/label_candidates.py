"""Exporting the users of the score cutoff whose label would teach most."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch

from churn_udf.batching import plan_batches
from churn_udf.contracts.bundle import MEMBER_FILES
from churn_udf.model.runner import ModelRunner
from churn_udf.model.trees import TreeModel
from trainer.data.snapshot import IndexArray, Snapshot
from trainer.data.splits import make_splits
from trainer.errors import ConfigError, RunError
from trainer.evaluate import fit_calibrator
from trainer.few_labels.candidates import choose_candidates, measure_uncertainty, reasons
from trainer.progress import Progress
from trainer.runs import Run

FloatArray = npt.NDArray[np.float64]
TEXT_MODEL, TREES = "bert", "gbm"
SUFFIXES = (".csv", ".parquet")
CHUNK = 4_096


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scored:
    """What a model says of K rows."""

    logits_K: FloatArray
    representation_KH: FloatArray


def label_candidates(run: Run, snapshot: Snapshot, *, count: int, progress: Progress) -> pa.Table:
    """Return the users at the score cutoff whose label would teach most, the first ones most.

    Args:
        run: A fitted run; its boosted trees take part when it has any.
        snapshot: Rows with the run's features; those of the score cutoff without a label are
            candidates, those of the run's validation split calibrate.
        count: How many users.
        progress: Shows steps.

    Returns:
        rank, user_id, cutoff_date, probability (calibrated, of the model), uncertainty (bits),
        reason.

    Raises:
        RunError: The run is not fitted, or has other features.
        ConfigError: No row is without a label, or ``count`` is below 1.
    """
    if not run.is_fitted:
        raise RunError(f"run {run.run_id} is not trained yet; run `churn-train fit` first")
    rows = unlabelled_rows(snapshot)
    runner = ModelRunner.load(run.model_dir, device=run.config.fit.device)
    if runner.feature_names != snapshot.feature_names:
        raise RunError(
            f"run {run.run_id} reads {len(runner.feature_names)} features, snapshot "
            f"{snapshot.snapshot_id} has {len(snapshot.feature_names)}, or others; train on it "
            "with `churn-train fit`"
        )
    valid = make_splits(snapshot, run.config.splits, seed=run.config.fit.seed).valid
    known = _score(runner, snapshot, valid, progress)
    asked = _score(runner, snapshot, rows, progress)
    members = {TEXT_MODEL: _calibrated(run, snapshot, valid, known.logits_K, asked.logits_K)}
    if (run.model_dir / MEMBER_FILES[TREES]).is_file():
        members[TREES] = _calibrated(
            run, snapshot, valid, *(_tree_logits(run, snapshot, part) for part in (valid, rows))
        )
    uncertainty = measure_uncertainty(list(members.values()))
    picked = choose_candidates(uncertainty.total_N, asked.representation_KH, count)
    return pa.table(
        {
            "rank": pa.array(np.arange(1, len(picked) + 1)),
            "user_id": snapshot.user_ids(rows[picked]),
            "cutoff_date": pa.array(snapshot.cutoff_dates[rows[picked]]),
            "probability": members[TEXT_MODEL][picked],
            "uncertainty": uncertainty.total_N[picked],
            "reason": reasons(members, uncertainty, picked),
        }
    )


def unlabelled_rows(snapshot: Snapshot) -> IndexArray:
    """Return the rows of the score cutoff whose label is not known.

    Raises:
        ConfigError: There is none.
    """
    cutoff = np.datetime64(str(snapshot.document["score_cutoff_date"]), "D")
    rows = np.flatnonzero((snapshot.cutoff_dates == cutoff) & np.isnan(snapshot.labels))
    if not len(rows):
        raise ConfigError(
            f"snapshot {snapshot.snapshot_id} has no unlabelled row at the score cutoff {cutoff}; "
            "set churn__score_cutoff_date to a newer day, then `dbt build` and "
            "`churn-train snapshot`"
        )
    return rows


def write_candidates(table: pa.Table, path: Path) -> None:
    """Write the table as CSV or Parquet, whole or not at all.

    Raises:
        ConfigError: The name ends otherwise.
    """
    require_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    if path.suffix == ".csv":
        pa.csv.write_csv(table, partial)
    else:
        pa.parquet.write_table(table, partial)
    partial.replace(path)


def require_suffix(path: Path) -> None:
    """Refuse a file that is neither CSV nor Parquet.

    Raises:
        ConfigError: The name ends otherwise.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"--out is {path}; allowed: a name that ends with {' or '.join(SUFFIXES)}"
        )


def _score(
    runner: ModelRunner, snapshot: Snapshot, rows: IndexArray, progress: Progress
) -> _Scored:
    """Return logits and what the last layer reads, of these rows."""
    model, seen = runner.model, []
    last = model.fusion[-1]
    hook = last.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    logits = np.empty(len(rows))
    states = np.empty((len(rows), int(last.in_features)))  # type: ignore[arg-type]
    try:
        with progress.step("candidates", total=len(rows)) as step, torch.inference_mode():
            for start in range(0, len(rows), CHUNK):
                chunk = rows[start : start + CHUNK]
                tokens = runner.tokenizer.encode(*snapshot.texts(chunk))
                features = snapshot.feature_matrix[chunk]
                for indices in plan_batches(tokens.lengths, runner.token_budget):
                    picked = tokens.take(indices)
                    values = model(
                        torch.from_numpy(picked.ids).to(runner.device),
                        torch.from_numpy(picked.segments).to(runner.device),
                        picked.lengths.tolist(),
                        torch.from_numpy(features[indices]).to(runner.device),
                    )
                    logits[start + indices] = values.double().cpu().numpy()
                    states[start + indices] = seen.pop().double().cpu().numpy()
                step.advance(len(chunk))
    finally:
        hook.remove()
    return _Scored(logits_K=logits, representation_KH=states)


def _calibrated(
    run: Run,
    snapshot: Snapshot,
    valid: IndexArray,
    valid_logits: FloatArray,
    logits: FloatArray,
) -> FloatArray:
    """Return probabilities by the calibrator that ``evaluate`` would pick."""
    calibrator, _ = fit_calibrator(
        valid_logits,
        snapshot.labels[valid],
        np.asarray(snapshot.user_ids(valid)),
        kinds=run.config.evaluate.calibration,
        seed=run.config.fit.seed,
    )
    return calibrator.apply(logits)


def _tree_logits(run: Run, snapshot: Snapshot, rows: IndexArray) -> FloatArray:
    """Return the boosted trees' raw scores of these rows."""
    file = run.model_dir / MEMBER_FILES[TREES]
    trees = TreeModel(file.read_text(encoding="utf-8"), snapshot.feature_names, file=str(file))
    return trees.logits(snapshot.feature_matrix[rows])
