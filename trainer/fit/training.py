"""The stages of training over one model: masked words, the numeric branch, everything together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from churn_udf.model.bert import PackedBert
from churn_udf.model.classifier import ChurnClassifier
from churn_udf.model.config import TEXT as TEXT_ALONE
from churn_udf.model.mixed import bf16_products
from churn_udf.model.runner import ModelRunner, resolve_device
from churn_udf.tokenization import TokenBatch, Tokenizer
from trainer.data.snapshot import Snapshot
from trainer.data.splits import Splits
from trainer.evaluate.base_rates import shifted_log_loss
from trainer.fit.adapters import Adapter
from trainer.fit.config import FINE_TUNE, FitConfig
from trainer.fit.contrastive import contrastive_stage
from trainer.fit.data import TokenReader, shuffled_batches, valid_sample
from trainer.fit.objective import logit_offset, make_objective
from trainer.fit.pretrain import MaskedWordModel, MaskedWords
from trainer.fit.reweighting import example_weights
from trainer.fit.sampling import RowSampler, draw_rows, recency_weights
from trainer.fit.stages import Stage
from trainer.fit.targets import Targets

IntArray = npt.NDArray[np.int64]
MIN_WIDTH_FOR_CPU_BF16 = 128
"""From which width on rounding the operands costs less than their products gain."""
MIN_WIDTH_FOR_CPU_AUTOCAST = 256
"""The same of encoders that run through transformers, where autocast rounds all they do."""
MEAN_TEXT_ROWS = 2_000
NUMERIC_BATCHES = 16  # of a pass over few rows, which must not be one step
MAX_NUMERIC_BATCH = 512
MIN_NUMERIC_BATCH = 32
MAX_PASS_FACTOR = 10


class Training:
    """The three stages over one model."""

    def __init__(
        self,
        snapshot: Snapshot,
        splits: Splits,
        config: FitConfig,
        model: ChurnClassifier,
        tokenizer: Tokenizer,
        adapter: Adapter,
        targets: Targets | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.config = config
        self.adapter = adapter
        self.splits = splits
        self.tokenizer = tokenizer
        self.device = resolve_device(config.device)
        self.model = model.to(self.device)
        self.features = snapshot.feature_matrix
        targets = targets or Targets.of_labels(snapshot.labels)
        self.labels = targets.labels_N
        self.reader = TokenReader(snapshot, tokenizer)
        self.uses_bf16 = self._choose_bf16()
        self.sampler = RowSampler(
            splits.train, self.labels[splits.train], config.sampling, config.sampling_share
        )
        self.objective = make_objective(config, self.sampler)
        self.row_weights = targets.weights_N * example_weights(snapshot, splits, config)
        self.row_weights[splits.train] *= recency_weights(
            snapshot.cutoff_dates[splits.train], config.recency_half_life_days
        )
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
                self.config.pretrain_epochs,
                len(self.splits.pretrain),
                self.config.max_pretrain_examples,
            ),
            plan=plan,
            loss=loss,
        )

    def contrastive_stage(self) -> Stage:
        """Return contrastive training of the encoder."""
        data = (self.snapshot, self.splits.pretrain, self.tokenizer, self.config)
        return contrastive_stage(
            self.model.encoder, *data, device=self.device, precision=self._precision
        )

    def numeric_stage(self) -> Stage:
        """Return training of the numeric branch, the text shown as its mean."""
        config, model = self.config, self.model

        def plan(epoch: int) -> list[IntArray]:
            generator = np.random.default_rng([config.seed, 4, epoch])
            rows = self.sampler.draw(config.max_numeric_examples, generator)
            size = np.clip(len(rows) // NUMERIC_BATCHES, MIN_NUMERIC_BATCH, MAX_NUMERIC_BATCH)
            return np.array_split(rows, max(1, len(rows) // int(size)))

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
            rows = self.sampler.draw(config.max_epoch_examples, generator)
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
            text_dropout = 0.0 if config.modality == TEXT_ALONE else config.text_dropout
            no_text = (fate < text_dropout)[:, None]
            no_codes = (fate > 1 - config.numeric_dropout)[:, None, None]
            text = torch.where(no_text, model.mean_text_D, text)
            codes = torch.where(no_codes, model.mean_codes_FC, self._codes(rows))
            label_loss = self._label_loss(model.fuse(text, codes), rows)
            penalty = self.adapter.penalty()
            return label_loss if penalty is None else label_loss + penalty

        encoder = list(model.encoder.parameters())
        numeric = [*model.wide.parameters(), *model.numeric_projection.parameters()]
        known = {id(p) for p in (*encoder, *numeric)}
        rest = [p for p in model.parameters() if id(p) not in known]
        tuned: dict[str, Any] = {
            "params": [p for p in encoder if p.requires_grad],
            "lr": config.peak_encoder_rate,
        }
        if config.adapter != "none":
            tuned["weight_decay"] = 0.0  # it would pull IA³'s scales from one to zero
        return Stage(
            name=FINE_TUNE,
            module=model,
            parameter_groups=[
                tuned,
                {"params": numeric, "lr": config.numeric_tuning_rate},
                {"params": rest, "lr": config.learning_rate},
            ],
            epochs=self._passes(config.epochs, self.sampler.size, config.max_epoch_examples),
            plan=plan,
            loss=loss,
            evaluate=lambda: self._evaluate(with_text=True),
            hook=self.adapter,
        )

    def _passes(self, least: int, num_rows: int, most_examples: int) -> int:
        """Return the passes over rows that show at least ``min_examples``, within bounds."""
        examples = max(1, min(num_rows, most_examples))
        wanted = -(-self.config.min_examples // examples)
        return min(max(least, wanted), MAX_PASS_FACTOR * least)

    def set_typical_text(self) -> None:
        """Store the mean encoded text of training rows, against which reasons are told."""
        generator = np.random.default_rng([self.config.seed, 7])
        rows = np.sort(draw_rows(self.splits.train, MEAN_TEXT_ROWS, generator))
        encoded = self._encode_all(self.reader.read(rows))
        self.model.mean_text_D.copy_(encoded.double().mean(dim=0).float())

    def correct_base_rate(self) -> float:
        """Undo in the bias what weights and sampling did to the base rate; return by how much."""
        offset = logit_offset(self.objective, self.sampler)
        with torch.no_grad():
            self.model.wide.bias.add_(offset)
        return offset

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
        """Return the loss of labelled rows."""
        labels_B = torch.from_numpy(self.labels[rows]).to(self.device, torch.float32)
        weights_B = torch.from_numpy(self.row_weights[rows]).to(labels_B)
        return self.objective.loss(logits_B, labels_B, weights_B)

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
        loss = shifted_log_loss(logits, labels)
        return {"valid_loss": loss, "valid_auroc": float(roc_auc_score(labels, logits))}

    def _choose_bf16(self) -> bool:
        """Return whether to run the encoder in mixed bf16."""
        if self.config.precision != "auto":
            return self.config.precision == "bf16"
        if self.device.type == "cuda":
            return bool(torch.cuda.is_bf16_supported())
        has_units = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        width = MIN_WIDTH_FOR_CPU_BF16 if self._is_packed else MIN_WIDTH_FOR_CPU_AUTOCAST
        return bool(has_units) and self.model.encoder.hidden_size >= width

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        """Run in mixed bf16 where chosen."""
        if self.device.type == "cpu" and self._is_packed:
            context: contextlib.AbstractContextManager[Any] = bf16_products(self.uses_bf16)
        else:
            context = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.uses_bf16)
        with context:
            yield

    @property
    def _is_packed(self) -> bool:
        """Return whether the encoder is our own packed one."""
        return isinstance(self.model.encoder, PackedBert)
