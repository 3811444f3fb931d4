"""Training a churn model: masked words, then the numeric branch, then everything together."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from churn_udf.contracts.bundle import TOKENIZER_DIR
from churn_udf.model.bert import PackedBert
from churn_udf.model.classifier import ChurnClassifier
from churn_udf.model.runner import ModelRunner, resolve_device
from churn_udf.tokenization import TokenBatch, Tokenizer
from trainer.data.snapshot import Snapshot
from trainer.data.splits import Splits
from trainer.fit.adapters import Adapter, adapt
from trainer.fit.build import build_classifier
from trainer.fit.checkpoint import Checkpointer
from trainer.fit.config import COMPACT, FitConfig
from trainer.fit.data import TokenReader, draw_rows, shuffled_batches, text_arrays, valid_sample
from trainer.fit.pretrain import MaskedWordModel, MaskedWords
from trainer.fit.stages import Stage, StageRunner
from trainer.progress import Progress

IntArray = npt.NDArray[np.int64]
MIN_WIDTH_FOR_CPU_BF16 = 256
MEAN_TEXT_ROWS = 2_000
NUMERIC_BATCH = 512
MAX_PASS_FACTOR = 10
MASKED, NUMERIC, JOINT = range(3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitResult:
    """What training leaves behind."""

    model_dir: Path
    """Directory with ``model.json``, ``model.safetensors`` and ``tokenizer/``."""
    history: list[dict[str, Any]]
    """Rows of ``history.jsonl``."""
    facts: dict[str, Any]
    """Encoder, parameters, vocabulary size, device, precision, seconds."""


def fit_model(
    snapshot: Snapshot, splits: Splits, config: FitConfig, run_dir: Path, *, progress: Progress
) -> FitResult:
    """Train a model, resuming from ``run_dir/checkpoint`` when an earlier process was killed.

    Args:
        snapshot: The rows.
        splits: Which of them train, validate and pretrain.
        config: Model and training settings.
        run_dir: Where model, history and checkpoint go; made when missing.
        progress: Shows steps.

    Raises:
        ConfigError: The encoder cannot be loaded, or no word is frequent enough.
        TrainingDivergedError: The loss is not finite.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    started_at = time.monotonic()
    with progress.step("vocabulary and features"):
        texts = text_arrays(snapshot, _vocabulary_rows(splits, config))
        model, tokenizer = build_classifier(
            *texts, snapshot.feature_matrix[splits.train], snapshot.features, config
        )
        adapter = adapt(model, config)
    runner = StageRunner(
        config,
        Checkpointer(run_dir / "checkpoint", config.checkpoint_seconds),
        progress,
        run_key=_run_key(snapshot, splits, config),
        history_path=run_dir / "history.jsonl",
    )
    training = _Training(snapshot, splits, config, model, tokenizer, adapter)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if config.encoder == COMPACT:
        runner.run(MASKED, training.masked_stage())
    runner.run(NUMERIC, training.numeric_stage())
    runner.run(JOINT, training.joint_stage())
    adapter.finish()
    training.set_typical_text()
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
        "device": str(training.device),
        "precision": "bf16" if training.uses_bf16 else "fp32",
        "threads": torch.get_num_threads(),
        "seconds": round(time.monotonic() - started_at, 1),
    }
    return FitResult(model_dir=model_dir, history=runner.history, facts=facts)


class _Training:
    """The three stages over one model."""

    def __init__(
        self,
        snapshot: Snapshot,
        splits: Splits,
        config: FitConfig,
        model: ChurnClassifier,
        tokenizer: Tokenizer,
        adapter: Adapter,
    ) -> None:
        self.config = config
        self.adapter = adapter
        self.splits = splits
        self.tokenizer = tokenizer
        self.device = resolve_device(config.device)
        self.model = model.to(self.device)
        self.features = snapshot.feature_matrix
        self.labels = snapshot.labels
        self.reader = TokenReader(snapshot, tokenizer)
        self.uses_bf16 = self._choose_bf16()
        self.class_weights = self._choose_class_weights()
        self.valid_rows = valid_sample(splits, config.max_valid_examples, config.seed)
        self._epoch: tuple[IntArray, TokenBatch] | None = None
        self._valid_tokens: TokenBatch | None = None

    def masked_stage(self) -> Stage:
        """Return masked-word training of the encoder."""
        assert isinstance(self.model.encoder, PackedBert)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed + 1)
            module = MaskedWordModel(self.model.encoder).to(self.device)

        def plan(epoch: int) -> list[IntArray]:
            generator = np.random.default_rng([self.config.seed, 2, epoch])
            rows = draw_rows(self.splits.pretrain, self.config.max_pretrain_examples, generator)
            self._epoch = rows, self.reader.read(rows)
            lengths = self._epoch[1].lengths
            return shuffled_batches(lengths, self.config.batch_tokens, generator, by_length=True)

        def loss(batch: IntArray, epoch: int, step: int) -> torch.Tensor:
            assert self._epoch is not None
            tokens = self._epoch[1].take(batch)
            hidden = MaskedWords(
                tokens,
                mask_id=self.tokenizer.mask_id,
                vocabulary_size=self.tokenizer.vocabulary_size,
                share=self.config.mask_share,
                generator=np.random.default_rng([self.config.seed, 3, epoch, step]),
            )
            with self._precision():
                return module.loss(
                    torch.from_numpy(hidden.ids).to(self.device),
                    torch.from_numpy(tokens.segments).to(self.device),
                    tokens.lengths,
                    hidden,
                )

        rate = self.config.pretrain_learning_rate
        return Stage(
            name="pretrain",
            module=module,
            parameter_groups=[{"params": list(module.parameters()), "lr": rate}],
            epochs=self._passes(
                self.config.pretrain_epochs, self.splits.pretrain, self.config.max_pretrain_examples
            ),
            plan=plan,
            loss=loss,
        )

    def numeric_stage(self) -> Stage:
        """Return training of the numeric branch, the text shown as its mean."""
        config, model = self.config, self.model

        def plan(epoch: int) -> list[IntArray]:
            generator = np.random.default_rng([config.seed, 4, epoch])
            rows = draw_rows(self.splits.train, config.max_numeric_examples, generator)
            return np.array_split(rows, max(1, len(rows) // NUMERIC_BATCH))

        def loss(batch: IntArray, epoch: int, step: int) -> torch.Tensor:
            codes = self._codes(batch)
            text = model.mean_text_D.expand(len(batch), -1)
            return self._label_loss(model.fuse(text, codes), batch)

        frozen = {id(p) for p in (*model.encoder.parameters(), *model.text_projection.parameters())}
        trained = [p for p in model.parameters() if id(p) not in frozen]
        return Stage(
            name="numeric",
            module=model,
            parameter_groups=[{"params": trained, "lr": config.numeric_learning_rate}],
            epochs=config.numeric_epochs,
            plan=plan,
            loss=loss,
            evaluate=lambda: self._evaluate(with_text=False),
        )

    def joint_stage(self) -> Stage:
        """Return fine-tuning of the whole model."""
        config, model = self.config, self.model

        def plan(epoch: int) -> list[IntArray]:
            generator = np.random.default_rng([config.seed, 5, epoch])
            rows = draw_rows(self.splits.train, config.max_epoch_examples, generator)
            self._epoch = rows, self.reader.read(rows)
            lengths = self._epoch[1].lengths
            return shuffled_batches(lengths, config.batch_tokens, generator, by_length=False)

        def loss(batch: IntArray, epoch: int, step: int) -> torch.Tensor:
            assert self._epoch is not None
            rows, tokens = self._epoch[0][batch], self._epoch[1].take(batch)
            with self._precision():
                text = self._encode(tokens)
            generator = np.random.default_rng([config.seed, 6, epoch, step])
            fate = torch.from_numpy(generator.random(len(batch))).to(self.device)
            no_text = (fate < config.text_dropout)[:, None]
            no_codes = (fate > 1 - config.numeric_dropout)[:, None, None]
            text = torch.where(no_text, model.mean_text_D, text)
            codes = torch.where(no_codes, model.mean_codes_FC, self._codes(rows))
            penalty = self.adapter.penalty()
            label_loss = self._label_loss(model.fuse(text, codes), rows)
            return label_loss if penalty is None else label_loss + penalty

        encoder = list(model.encoder.parameters())
        numeric = [*model.wide.parameters(), *model.numeric_projection.parameters()]
        known = {id(p) for p in (*encoder, *numeric)}
        rest = [p for p in model.parameters() if id(p) not in known]
        tuned: dict[str, Any] = {
            "params": [p for p in encoder if p.requires_grad],
            "lr": config.encoder_rate,
        }
        if config.adapter != "none":
            tuned["weight_decay"] = 0.0  # it would pull IA³'s scales from one to zero
        return Stage(
            name="fine-tune",
            module=model,
            parameter_groups=[
                tuned,
                {"params": numeric, "lr": config.numeric_tuning_rate},
                {"params": rest, "lr": config.learning_rate},
            ],
            epochs=self._passes(config.epochs, self.splits.train, config.max_epoch_examples),
            plan=plan,
            loss=loss,
            evaluate=lambda: self._evaluate(with_text=True),
            hook=self.adapter,
        )

    def _passes(self, least: int, rows: IntArray, most_examples: int) -> int:
        """Return the passes over rows that show at least ``min_examples``, within bounds."""
        examples = max(1, min(len(rows), most_examples))
        wanted = -(-self.config.min_examples // examples)
        return min(max(least, wanted), MAX_PASS_FACTOR * least)

    def set_typical_text(self) -> None:
        """Store the mean encoded text of training rows, against which reasons are told."""
        generator = np.random.default_rng([self.config.seed, 7])
        rows = np.sort(draw_rows(self.splits.train, MEAN_TEXT_ROWS, generator))
        encoded = self._encode_all(self.reader.read(rows))
        self.model.mean_text_D.copy_(encoded.double().mean(dim=0).float())

    def _encode(self, tokens: TokenBatch) -> torch.Tensor:
        """Return (B, D) encoded texts, sorted by length."""
        return self.model.encode_text(
            torch.from_numpy(tokens.ids).to(self.device),
            torch.from_numpy(tokens.segments).to(self.device),
            tokens.lengths.tolist(),
        )

    def _encode_all(self, tokens: TokenBatch) -> torch.Tensor:
        """Return (B, D) encoded texts in their own order, without gradients."""
        order = np.argsort(tokens.lengths, kind="stable")
        encoded = torch.empty(len(tokens), self.model.encoder.hidden_size, device=self.device)
        self.model.eval()
        with torch.inference_mode():
            for indices in np.array_split(order, max(1, len(order) // 64)):
                encoded[torch.from_numpy(indices)] = self._encode(tokens.take(indices))
        return encoded.clone()

    def _codes(self, rows: IntArray) -> torch.Tensor:
        """Return (B, F, C) coded features of these rows."""
        codes: torch.Tensor = self.model.coding(
            torch.from_numpy(self.features[rows]).to(self.device)
        )
        return codes

    def _label_loss(self, logits_B: torch.Tensor, rows: IntArray) -> torch.Tensor:
        """Return the mean weighted cross entropy."""
        labels_B = torch.from_numpy(self.labels[rows]).to(self.device, torch.float32)
        stayed, churned = self.class_weights
        weights_B = torch.where(labels_B > 0.5, churned, stayed)
        losses_B = functional.binary_cross_entropy_with_logits(logits_B, labels_B, reduction="none")
        return (weights_B * losses_B).sum() / weights_B.sum()

    def _evaluate(self, *, with_text: bool) -> dict[str, float]:
        """Return loss (at the best intercept, as base rates move) and AUROC on validation."""
        from sklearn.metrics import roc_auc_score

        labels = self.labels[self.valid_rows]
        if with_text:
            if self._valid_tokens is None:
                self._valid_tokens = self.reader.read(self.valid_rows)
            runner = ModelRunner(self.model, self.tokenizer, device=str(self.device))
            logits = runner.logits(self._valid_tokens, self.features[self.valid_rows])
        else:
            with torch.inference_mode():
                text = self.model.mean_text_D.expand(len(labels), -1)
                logits = self.model.fuse(text, self._codes(self.valid_rows)).double().cpu().numpy()
        shifted = logits + _best_shift(logits, labels)
        loss = float(np.mean(np.logaddexp(0.0, shifted) - labels * shifted))
        return {"valid_loss": loss, "valid_auroc": float(roc_auc_score(labels, logits))}

    def _choose_bf16(self) -> bool:
        """Return whether to run the encoder in mixed bf16."""
        if self.config.precision != "auto":
            return self.config.precision == "bf16"
        if self.device.type == "cuda":
            return bool(torch.cuda.is_bf16_supported())
        has_units = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        return bool(has_units) and self.model.encoder.hidden_size >= MIN_WIDTH_FOR_CPU_BF16

    def _choose_class_weights(self) -> tuple[float, float]:
        """Return the weights of stayed and churned."""
        if self.config.class_weights == "none":
            return 1.0, 1.0
        base_rate = float(self.labels[self.splits.train].mean())
        return 0.5 / (1.0 - base_rate), 0.5 / base_rate

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        """Run in mixed bf16 where chosen."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.uses_bf16):
            yield


def _best_shift(logits: npt.NDArray[np.float64], labels: npt.NDArray[np.float64]) -> float:
    """Return the intercept that minimises log loss, by Newton's method."""
    shift = 0.0
    for _ in range(25):
        probabilities = 0.5 * (1.0 + np.tanh(0.5 * (logits + shift)))
        slope = float(np.mean(probabilities * (1.0 - probabilities)))
        move = float(np.mean(labels - probabilities)) / max(slope, 1e-6)
        shift += float(np.clip(move, -2.0, 2.0))
        if abs(move) < 1e-9:
            break
    return shift


def _vocabulary_rows(splits: Splits, config: FitConfig) -> IntArray:
    """Return rows for the vocabulary: neighbouring cutoffs repeat words, so a part is enough."""
    generator = np.random.default_rng([config.seed, 8])
    return np.sort(draw_rows(splits.pretrain, 4 * config.max_pretrain_examples, generator))


def _run_key(snapshot: Snapshot, splits: Splits, config: FitConfig) -> str:
    """Return a hash of all that a checkpoint depends on."""
    content = {
        "snapshot_id": snapshot.snapshot_id,
        "splits": dict(splits.facts),
        "config": dataclasses.asdict(config),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
