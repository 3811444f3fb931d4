"""Training a churn model: masked words, then the numeric branch, then everything together."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from churn_udf.contracts.bundle import TOKENIZER_DIR
from churn_udf.model.config import TEXT as TEXT_ALONE
from trainer.data.snapshot import Snapshot
from trainer.data.splits import Splits
from trainer.fit.adapters import adapt
from trainer.fit.build import build_classifier
from trainer.fit.checkpoint import Checkpointer
from trainer.fit.config import COMPACT, FitConfig
from trainer.fit.data import text_arrays
from trainer.fit.encoder_store import EncoderStore, encoder_key, pretrain_once
from trainer.fit.sampling import draw_rows
from trainer.fit.stages import LogRow, Stage, StageRunner
from trainer.fit.targets import Targets
from trainer.fit.training import Training
from trainer.fit.warm_start import WarmStart, load_start
from trainer.progress import Progress

IntArray = npt.NDArray[np.int64]
MASKED, NUMERIC, JOINT = range(3)
CONTRASTIVE = 1  # when it takes part; the stages after it move by one


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitResult:
    """What training leaves behind."""

    model_dir: Path
    """Directory with ``model.json``, ``model.safetensors`` and ``tokenizer/``."""
    history: list[dict[str, Any]]
    """Rows of ``history.jsonl``."""
    facts: dict[str, Any]
    """Encoder, parameters, vocabulary size, modality, logit offset, device, precision, seconds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlierFit:
    """A finished fit that another one repeats on other rows, without looking at validation."""

    stop_shares: Mapping[str, float]
    """Stage -> share of its schedule after which it was at its best; 0 leaves the stage out."""

    def repeat(self, stage: Stage) -> Stage:
        """Return the stage as it was: blind, and ending where the earlier one was at its best."""
        stop = self.stop_shares.get(stage.name, 0.0) * stage.epochs
        epochs = stage.epochs if stop else 0
        return dataclasses.replace(stage, evaluate=None, stop_epoch=stop, epochs=epochs)


def fit_model(
    snapshot: Snapshot,
    splits: Splits,
    config: FitConfig,
    run_dir: Path,
    *,
    progress: Progress,
    earlier: EarlierFit | None = None,
    on_log: LogRow | None = None,
    targets: Targets | None = None,
    encoders: EncoderStore | None = None,
    start: WarmStart | None = None,
) -> FitResult:
    """Train a model, resuming from ``run_dir/checkpoint`` when an earlier process was killed.

    Args:
        snapshot: The rows.
        splits: Which of them train, validate and pretrain.
        config: Model and training settings.
        run_dir: Where model, history and checkpoint go; made when missing.
        progress: Shows steps.
        earlier: Repeat this fit on the training rows of ``splits``, stopping where it was best.
        on_log: Called with every row of the history as it comes, and first with those that a
            killed process left; what it raises ends training.
        targets: What the rows teach; None: their labels, all of one weight.
        encoders: Where pretraining is looked up and kept; None repeats it.
        start: A model to start from, which leaves pretraining out; None starts anew.

    Raises:
        ConfigError: The encoder cannot be loaded, or no word is frequent enough.
        TrainingDivergedError: The loss is not finite.
    """
    if config.pseudo_labels:
        from trainer.fit.self_training import fit_with_pseudo_labels

        return fit_with_pseudo_labels(snapshot, splits, config, run_dir, progress, encoders)
    run_dir.mkdir(parents=True, exist_ok=True)
    started_at = time.monotonic()
    with progress.step("vocabulary and features"):
        features = snapshot.feature_matrix[splits.train]
        if start is None:
            texts = text_arrays(snapshot, _vocabulary_rows(splits, config))
            model, tokenizer = build_classifier(*texts, features, snapshot.features, config)
        else:
            model, tokenizer = load_start(start, config, features)
        adapter = adapt(model, config)
    runner = StageRunner(
        config,
        Checkpointer(run_dir / "checkpoint", config.checkpoint_seconds),
        progress,
        run_key=_run_key(snapshot, splits, config, targets, start),
        history_path=run_dir / "history.jsonl",
        on_log=on_log,
    )
    training = Training(snapshot, splits, config, model, tokenizer, adapter, targets)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    shift = int(config.contrastive_epochs > 0)  # leaves seeds as they are where it is left out
    if model.reads_text and start is None:
        stages = [(MASKED, training.masked_stage)] if config.encoder == COMPACT else []
        if shift:
            stages.append((CONTRASTIVE, training.contrastive_stage))
        key = encoder_key(snapshot, splits.pretrain, config)
        pretrain_once(model.encoder, runner, stages, encoders, key)
    supervised: list[tuple[int, Stage]] = []
    if config.modality != TEXT_ALONE:
        supervised.append((NUMERIC + shift, training.numeric_stage()))
    if model.reads_text:
        supervised.append((JOINT + shift, training.joint_stage()))
    for index, stage in supervised:
        runner.run(index, earlier.repeat(stage) if earlier else stage)
    adapter.finish()
    if model.reads_text:
        training.set_typical_text()
    offset = training.correct_base_rate()
    model_dir = run_dir / "model"
    (model_dir / TOKENIZER_DIR).mkdir(parents=True, exist_ok=True)
    model.eval().save(model_dir)
    tokenizer.save(model_dir / TOKENIZER_DIR)
    runner.checkpointer.clear()
    facts = {
        "encoder": config.encoder,
        "adapter": config.adapter,
        "trained_parameters": trainable,
        "parameters": sum(p.numel() for p in model.parameters()),
        "encoder_parameters": sum(p.numel() for p in model.encoder.parameters()),
        "vocabulary_size": tokenizer.vocabulary_size,
        "modality": config.modality,
        "logit_offset": offset,
        "device": str(training.device),
        "precision": "bf16" if training.uses_bf16 else "fp32",
        "threads": torch.get_num_threads(),
        "seconds": round(time.monotonic() - started_at, 1),
    }
    return FitResult(model_dir=model_dir, history=runner.history, facts=facts)


def _vocabulary_rows(splits: Splits, config: FitConfig) -> IntArray:
    """Return rows for the vocabulary: neighbouring cutoffs repeat words, so a part is enough."""
    generator = np.random.default_rng([config.seed, 8])
    return np.sort(draw_rows(splits.pretrain, 4 * config.max_pretrain_examples, generator))


def _run_key(
    snapshot: Snapshot,
    splits: Splits,
    config: FitConfig,
    targets: Targets | None,
    start: WarmStart | None,
) -> str:
    """Return a hash of all that a checkpoint depends on."""
    content = {
        "snapshot_id": snapshot.snapshot_id,
        "splits": dict(splits.facts),
        "train": hashlib.sha256(splits.train.tobytes()).hexdigest(),
        "targets": targets.digest() if targets else None,
        "config": dataclasses.asdict(config),
        "start": start.bundle_id if start else None,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
