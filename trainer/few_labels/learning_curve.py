"""Quality at few labels: the model with and without pretraining beside its baselines.

Every point is one model, one number of labelled training rows and one seed. Finished points are
kept in ``learning_curve.json`` and never repeated; a fit that was killed goes on from its
checkpoint. Validation rows choose epochs, ridge and rounds of all models alike.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.config import TrainConfig, to_mapping
from trainer.data.snapshot import IndexArray, Snapshot
from trainer.data.splits import Splits, make_splits
from trainer.errors import ConfigError
from trainer.evaluate import (
    BASELINE_TITLES,
    BaselineRows,
    classification_metrics,
    fit_baselines,
    fit_calibrator,
)
from trainer.few_labels.subsets import DRAWS, STRATIFIED, label_order
from trainer.fit.config import COMPACT, FitConfig
from trainer.progress import Progress
from trainer.runs import code_version, read_json, short_hash, to_json, write_text

FloatArray = npt.NDArray[np.float64]
CURVE_FILE = "learning_curve.json"
SIZES = (100, 300, 1_000, 3_000, 10_000)
METRICS = ("auroc", "average_precision", "log_loss", "brier_score")
PRETRAINED, PLAIN_MODEL = "pretrained", "plain"
MODEL_TITLES = {
    PRETRAINED: "BERT with features, pretrained on all text",
    PLAIN_MODEL: "BERT with features, no pretraining",
    "logistic": BASELINE_TITLES["logistic"],
    "lightgbm": BASELINE_TITLES["lightgbm"],
}
JUDGED = ("valid", "test")
PREDICT_ROWS = 4_096


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CurveConfig:
    """Which points a learning curve has."""

    sizes: tuple[int, ...] = SIZES
    """Labelled training rows."""
    seeds: int = 3
    """Draws and models a point; the first seed is ``fit.seed``."""
    draw: str = STRATIFIED
    """``stratified`` or ``plain``, see ``label_order``."""
    split: str = "valid"
    """Rows that are judged: ``valid``; ``test`` for a final report."""
    models: tuple[str, ...] = tuple(MODEL_TITLES)
    """Of ``MODEL_TITLES``."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if not self.sizes or min(self.sizes) < 10:
            raise ConfigError(f"sizes are {list(self.sizes)}; allowed: whole numbers of 10 or more")
        if self.seeds < 1:
            raise ConfigError(f"seeds is {self.seeds}; allowed: 1 or more")
        for name, allowed in (("draw", DRAWS), ("split", JUDGED)):
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}"
                )
        if not self.models or not set(self.models) <= set(MODEL_TITLES):
            raise ConfigError(
                f"models are {list(self.models)}; allowed: one or more of {', '.join(MODEL_TITLES)}"
            )


def curve_id(snapshot: Snapshot, config: TrainConfig, curve: CurveConfig) -> str:
    """Return a hash of all that decides a point; sizes, seeds and models may be added later."""
    tree = to_mapping(config)
    chosen = {name: tree[name] for name in ("splits", "fit")}
    return short_hash(
        {
            "snapshot_id": snapshot.snapshot_id,
            "code": code_version(),
            "draw": curve.draw,
            "split": curve.split,
            **chosen,
        }
    )


def measure_curve(
    snapshot: Snapshot, config: TrainConfig, curve: CurveConfig, out_dir: Path, progress: Progress
) -> dict[str, Any]:
    """Measure every point that is not there yet and write ``learning_curve.json``.

    Args:
        snapshot: The rows.
        config: Settings; ``fit.seed`` is the first seed.
        curve: Which points.
        out_dir: Where points and unfinished fits go; made when missing.
        progress: Shows steps.

    Returns:
        The content of the file: identity, points, and mean and spread over seeds.

    Raises:
        ConfigError: The folder holds another curve, or no size is small enough.
        SplitError: The history is too short.
    """
    splits = make_splits(snapshot, config.splits, seed=config.fit.seed)
    identity = curve_id(snapshot, config, curve)
    found = read_json(out_dir / CURVE_FILE) or {"curve_id": identity, "points": []}
    if found["curve_id"] != identity:
        raise ConfigError(
            f"{out_dir / CURVE_FILE} holds the curve {found['curve_id']} of another snapshot, code "
            f"or setting, this one is {identity}; choose another --out or delete the folder"
        )
    sizes = _possible_sizes(curve, splits, progress)
    known = {_key(point): point for point in found["points"]}
    out_dir.mkdir(parents=True, exist_ok=True)
    wanted = [
        (config.fit.seed + index, size, model)
        for index in range(curve.seeds)
        for size in sizes
        for model in curve.models
    ]
    meter = _Meter(snapshot, splits, config, curve, out_dir, progress)
    for seed, size, model in wanted:
        if (model, size, seed) in known:
            continue
        point = meter.measure(model, size, seed)
        known[(model, size, seed)] = point
        document = _document(snapshot, splits, curve, identity, list(known.values()))
        write_text(out_dir / CURVE_FILE, to_json(document))
        progress.note(f"{model}, {size:,} labels, seed {seed}: AUROC {point['auroc']:.4f}")
    shutil.rmtree(meter.scratch, ignore_errors=True)
    document = _document(snapshot, splits, curve, identity, list(known.values()))
    write_text(out_dir / CURVE_FILE, to_json(document))
    return document


class _Meter:
    """Fits one model on the first labels of a seed's order and measures it."""

    def __init__(
        self,
        snapshot: Snapshot,
        splits: Splits,
        config: TrainConfig,
        curve: CurveConfig,
        out_dir: Path,
        progress: Progress,
    ) -> None:
        self.snapshot = snapshot
        self.splits = splits
        self.config = config
        self.curve = curve
        self.scratch = out_dir / "fits"
        self.progress = progress

    def measure(self, model: str, size: int, seed: int) -> dict[str, Any]:
        """Return one point: metrics, seconds and the base rate of the labels."""
        started_at = time.monotonic()
        order = label_order(self.snapshot, self.splits.train, draw=self.curve.draw, seed=seed)
        rows = np.sort(order[:size])
        base_rate = float(self.snapshot.labels[rows].mean())
        if not 0.0 < base_rate < 1.0:
            raise ConfigError(
                f"{size} labels of seed {seed} hold one class only; give larger --sizes or "
                f"--draw {STRATIFIED}"
            )
        if model in (PRETRAINED, PLAIN_MODEL):
            probabilities = self._fused(model, rows, seed)
        else:
            probabilities = self._baseline(model, rows, seed)
        judged = getattr(self.splits, self.curve.split)
        metrics = classification_metrics(self.snapshot.labels[judged], probabilities, 0.5)
        return {
            "model": model,
            "labels": size,
            "seed": seed,
            "users": len(set(self.snapshot.user_ids(rows))),
            "base_rate": base_rate,
            "seconds": round(time.monotonic() - started_at, 1),
            **{name: metrics[name] for name in METRICS},
        }

    def _fused(self, model: str, rows: IndexArray, seed: int) -> FloatArray:
        """Fit the fused model and return calibrated probabilities of the judged rows."""
        from churn_udf.model.runner import ModelRunner
        from trainer.fit.encoder_store import EncoderStore
        from trainer.fit.loop import fit_model

        config = dataclasses.replace(self.config.fit, seed=seed)
        if model == PLAIN_MODEL:
            config = without_pretraining(config)
        splits = dataclasses.replace(self.splits, train=rows)
        directory = self.scratch / f"{model}-{len(rows)}-{seed}"
        encoders = EncoderStore(self.scratch / "encoders")
        result = fit_model(
            self.snapshot, splits, config, directory, progress=self.progress, encoders=encoders
        )
        runner = ModelRunner.load(result.model_dir, device=config.device)
        logits = {name: self._logits(runner, getattr(splits, name)) for name in self._read_splits}
        shutil.rmtree(directory)
        return self._calibrated(logits, seed)

    def _baseline(self, model: str, rows: IndexArray, seed: int) -> FloatArray:
        """Fit a baseline on the same rows and return probabilities calibrated alike."""
        valid, judged = (self._rows(getattr(self.splits, name)) for name in self._read_splits)
        result = fit_baselines(
            self._rows(rows),
            valid,
            judged,
            self.snapshot.feature_names,
            self.config.evaluate.rfm,
            seed,
            (model,),
        )[model]
        first, second = self._read_splits
        return self._calibrated({first: result.valid_logits, second: result.test_logits}, seed)

    @property
    def _read_splits(self) -> tuple[str, str]:
        """Splits that are predicted: the one to calibrate on, the one to judge."""
        return "valid", self.curve.split

    def _calibrated(self, logits: dict[str, FloatArray], seed: int) -> FloatArray:
        """Apply Platt's line, fitted on validation rows, to the logits of the judged rows."""
        rows = self.splits.valid
        calibrator, _ = fit_calibrator(
            logits["valid"],
            self.snapshot.labels[rows],
            np.asarray(self.snapshot.user_ids(rows)),
            kinds=("platt",),
            seed=seed,
        )
        return calibrator.apply(logits[self.curve.split])

    def _logits(self, runner: Any, rows: IndexArray) -> FloatArray:
        """Return (K,) logits of these rows."""
        chunks = [rows[start : start + PREDICT_ROWS] for start in range(0, len(rows), PREDICT_ROWS)]
        values = [
            runner.logits(
                runner.tokenizer.encode(*self.snapshot.texts(chunk)),
                self.snapshot.feature_matrix[chunk],
            )
            for chunk in chunks
        ]
        return np.concatenate(values)

    def _rows(self, rows: IndexArray) -> BaselineRows:
        """Return what a baseline reads of these rows."""
        return BaselineRows(
            features_NF=self.snapshot.feature_matrix[rows],
            labels_N=self.snapshot.labels[rows],
            user_ids_N=np.asarray(self.snapshot.user_ids(rows)),
        )


def without_pretraining(config: FitConfig) -> FitConfig:
    """Return the settings with every stage left out that learns from unlabelled text."""
    return dataclasses.replace(config, pretrain_epochs=0, contrastive_epochs=0, pseudo_labels=False)


def summarize(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and spread over seeds of every metric, per model and number of labels."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for point in points:
        groups.setdefault((point["model"], point["labels"]), []).append(point)
    return [
        {
            "model": model,
            "labels": size,
            "seeds": len(members),
            **{name: _spread([float(member[name]) for member in members]) for name in METRICS},
        }
        for (model, size), members in groups.items()
    ]


def _spread(values: list[float]) -> dict[str, float | None]:
    """Return mean, sample standard deviation (None of one value), least and most."""
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
    }


def _possible_sizes(curve: CurveConfig, splits: Splits, progress: Progress) -> tuple[int, ...]:
    """Return the sizes that the training rows allow, ascending."""
    sizes = sorted(set(curve.sizes))
    possible = tuple(size for size in sizes if size <= len(splits.train))
    if not possible:
        raise ConfigError(
            f"sizes are {sizes}, but there are {len(splits.train):,} labelled training rows; "
            "give smaller --sizes"
        )
    if len(possible) < len(sizes):
        left_out = ", ".join(f"{size:,}" for size in sizes[len(possible) :])
        progress.warn(f"left out, only {len(splits.train):,} labelled training rows: {left_out}")
    return possible


def _document(
    snapshot: Snapshot,
    splits: Splits,
    curve: CurveConfig,
    identity: str,
    points: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the content of ``learning_curve.json``."""
    ordered = sorted(points, key=_sort_key)
    return {
        "curve_id": identity,
        "snapshot_id": snapshot.snapshot_id,
        "split": curve.split,
        "judged_rows": len(getattr(splits, curve.split)),
        "draw": curve.draw,
        "train_rows": len(splits.train),
        "pretrain_rows": len(splits.pretrain),
        "points": ordered,
        "summary": summarize(ordered),
    }


def _key(point: dict[str, Any]) -> tuple[str, int, int]:
    """Return what names a point."""
    return str(point["model"]), int(point["labels"]), int(point["seed"])


def _sort_key(point: dict[str, Any]) -> tuple[int, int, int]:
    """Return the place of a point in the file."""
    return list(MODEL_TITLES).index(point["model"]), int(point["labels"]), int(point["seed"])


def models_of(config: FitConfig, chosen: tuple[str, ...]) -> Iterator[str]:
    """Yield the models that differ under these settings: without pretraining there is one BERT."""
    pretrains = config.encoder == COMPACT and config.pretrain_epochs > 0
    for model in chosen:
        if model != PRETRAINED or pretrains or config.contrastive_epochs > 0:
            yield model
