"""Pseudo-labels: a first model labels rows without label, a second one learns from both.

Confirmation bias is guarded against three times: only confident rows join, they join with the
class balance that the first model predicts for the pool, and the second model is kept only if its
validation loss is not worse.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from churn_udf.model.runner import ModelRunner
from trainer.data.snapshot import Snapshot
from trainer.data.splits import Splits
from trainer.evaluate import fit_calibrator
from trainer.fit.config import FitConfig
from trainer.fit.data import text_arrays, valid_sample
from trainer.fit.encoder_store import EncoderStore
from trainer.fit.loop import FitResult, fit_model
from trainer.fit.sampling import draw_rows
from trainer.fit.targets import Targets
from trainer.progress import Progress

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
MAX_POOL = 20_000
CHUNK = 4_096
STAGE = "pseudo-labels"
JOINT_STAGE = "fine-tune"
FINISHED_FILE = "finished.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PseudoLabels:
    """Rows that a model was sure of."""

    places_K: IntArray
    """(K,) places in the pool, ascending."""
    labels_K: FloatArray
    """(K,) 0/1."""
    prior: float
    """Mean predicted probability of the whole pool, [0, 1]."""


def choose_pseudo_labels(
    probabilities_P: FloatArray,
    *,
    confidence: float,
    most: int,
    generator: np.random.Generator,
) -> PseudoLabels:
    """Pick confident rows so that they churn as often as the pool is predicted to.

    Args:
        probabilities_P: (P,) calibrated churn probabilities of the pool.
        confidence: Least probability of the class that is said, [0.5, 1).
        most: Most rows to pick.
        generator: Picks among the confident rows: the surest of all would teach least.
    """
    prior = float(probabilities_P.mean()) if len(probabilities_P) else 0.0
    churned = np.flatnonzero(probabilities_P >= confidence)
    stayed = np.flatnonzero(probabilities_P <= 1.0 - confidence)
    total = 0.0
    if 0.0 < prior < 1.0:
        total = min(most, len(churned) / prior, len(stayed) / (1.0 - prior))
    picked = [
        draw_rows(rows, round(total * share), generator)
        for rows, share in ((churned, prior), (stayed, 1.0 - prior))
    ]
    places = np.concatenate(picked)
    labels = np.repeat([1.0, 0.0], [len(rows) for rows in picked])
    order = np.argsort(places, kind="stable")
    return PseudoLabels(places_K=places[order], labels_K=labels[order], prior=prior)


def fit_with_pseudo_labels(
    snapshot: Snapshot,
    splits: Splits,
    config: FitConfig,
    run_dir: Path,
    progress: Progress,
    encoders: EncoderStore | None = None,
) -> FitResult:
    """Train a first model, let it label the pool, train a second one, keep the better.

    The pool are the rows for pretraining that do not train: all lie before the validation cutoffs
    or belong to users that do not validate. Arguments and errors are those of ``fit_model``.
    """
    started_at = time.monotonic()
    plain = dataclasses.replace(config, pseudo_labels=False)
    scratch = run_dir / "checkpoint"
    encoders = encoders or EncoderStore(scratch / "encoders")
    first = _fit_once(snapshot, splits, plain, scratch / "first", progress, None, encoders)
    chosen, rows = _label_pool(snapshot, splits, config, first, progress)
    facts: dict[str, Any] = {
        "stage": STAGE,
        "epoch": 0.0,
        "rows": len(rows),
        "churned_share": float(chosen.labels_K.mean()) if len(rows) else None,
        "predicted_prior": chosen.prior,
        "first_loss": _joint_loss(first),
        "is_kept": False,
    }
    kept, history = first, [*first.history, facts]
    if 0 < chosen.labels_K.sum() < len(rows):
        targets = _targets(snapshot, rows, chosen, config.pseudo_label_weight)
        train = np.union1d(splits.train, rows)
        widened = dataclasses.replace(splits, train=train)
        second = _fit_once(
            snapshot, widened, plain, scratch / "second", progress, targets, encoders
        )
        facts["second_loss"] = _joint_loss(second)
        facts["is_kept"] = facts["second_loss"] <= facts["first_loss"]
        kept = second if facts["is_kept"] else first
        history += [{**row, "stage": f"{row['stage']} again"} for row in second.history]
    shutil.copytree(kept.model_dir, run_dir / "model", dirs_exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in history)
    (run_dir / "history.jsonl").write_text(lines, encoding="utf-8")
    shutil.rmtree(scratch)
    verdict = f"{len(rows)} rows, {'kept' if facts['is_kept'] else 'not kept'}"
    progress.note(
        f"pseudo-labels: {verdict}; validation loss {facts['first_loss']:.4f} without"
        + (f", {facts['second_loss']:.4f} with" if "second_loss" in facts else "")
    )
    return FitResult(
        model_dir=run_dir / "model",
        history=history,
        facts={
            **kept.facts,
            "seconds": round(time.monotonic() - started_at, 1),
            "pseudo_labels": verdict,
        },
    )


def _fit_once(
    snapshot: Snapshot,
    splits: Splits,
    config: FitConfig,
    directory: Path,
    progress: Progress,
    targets: Targets | None,
    encoders: EncoderStore,
) -> FitResult:
    """Fit, or read what an earlier process finished with the same settings and labels."""
    key = {
        "snapshot_id": snapshot.snapshot_id,
        "config": dataclasses.asdict(config),
        "train": splits.train.tolist(),
        "targets": targets.digest() if targets else None,
    }
    finished = directory / FINISHED_FILE
    if finished.is_file():
        found: Mapping[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
        if found["key"] == key:
            return FitResult(
                model_dir=directory / "model", history=found["history"], facts=found["facts"]
            )
    result = fit_model(
        snapshot, splits, config, directory, progress=progress, targets=targets, encoders=encoders
    )
    document = {"key": key, "history": result.history, "facts": result.facts}
    partial = finished.with_suffix(".partial")
    partial.write_text(json.dumps(document), encoding="utf-8")
    partial.replace(finished)
    return result


def _label_pool(
    snapshot: Snapshot, splits: Splits, config: FitConfig, first: FitResult, progress: Progress
) -> tuple[PseudoLabels, IntArray]:
    """Return the confident pseudo-labels and the snapshot rows that they belong to."""
    generator = np.random.default_rng([config.seed, 11])
    pool = np.setdiff1d(splits.pretrain, splits.train)
    pool = np.sort(draw_rows(pool, MAX_POOL, generator))
    valid = valid_sample(splits, config.max_valid_examples, config.seed)
    runner = ModelRunner.load(first.model_dir, device=config.device)
    calibrator, _ = fit_calibrator(
        _logits(runner, snapshot, valid, progress),
        snapshot.labels[valid],
        np.asarray(snapshot.user_ids(valid)),
        kinds=("platt",),
        seed=config.seed,
    )
    chosen = choose_pseudo_labels(
        calibrator.apply(_logits(runner, snapshot, pool, progress)),
        confidence=config.pseudo_label_confidence,
        most=int(config.pseudo_label_ratio * len(splits.train)),
        generator=generator,
    )
    return chosen, pool[chosen.places_K]


def _logits(
    runner: ModelRunner, snapshot: Snapshot, rows: IntArray, progress: Progress
) -> FloatArray:
    """Return (K,) logits of these rows."""
    logits = np.empty(len(rows))
    with progress.step("pseudo-labels", total=len(rows)) as step:
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            tokens = runner.tokenizer.encode(*text_arrays(snapshot, chunk))
            values = runner.logits(tokens, snapshot.feature_matrix[chunk])
            logits[start : start + CHUNK] = values
            step.advance(len(chunk))
    return logits


def _targets(snapshot: Snapshot, rows: IntArray, chosen: PseudoLabels, weight: float) -> Targets:
    """Return the labels with those of the pool in place, which weigh less."""
    known = Targets.of_labels(snapshot.labels.copy())
    known.labels_N[rows] = chosen.labels_K
    known.weights_N[rows] = weight
    return known


def _joint_loss(result: FitResult) -> float:
    """Return the validation loss of the weights that were kept."""
    return min(float(row["valid_loss"]) for row in result.history if _is_look(row))


def _is_look(row: Mapping[str, Any]) -> bool:
    """Return whether a row of the history is a look at validation in joint training."""
    return row["stage"] == JOINT_STAGE and "valid_loss" in row
