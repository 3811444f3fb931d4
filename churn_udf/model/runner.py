"""Running a saved model over texts and features: the one forward path of trainer and scorer."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from churn_udf.batching import plan_batches
from churn_udf.contracts.bundle import TOKENIZER_DIR
from churn_udf.errors import ScoringError
from churn_udf.model.bert import PackedBert
from churn_udf.model.classifier import ChurnClassifier
from churn_udf.model.engine import PackedEngine, can_pack
from churn_udf.model.memory import run_within_memory
from churn_udf.model.output import ModelOutput
from churn_udf.model.precision import AUTO, BF16, FP32, Precision, choose_precision, usable_mode
from churn_udf.model.threads import run_each
from churn_udf.tokenization import IntArray, TokenBatch, Tokenizer, load_tokenizer

FloatArray = npt.NDArray[np.float64]
Encode = Callable[[torch.Tensor, torch.Tensor, Sequence[int]], torch.Tensor]
LOGGER = logging.getLogger(__name__)

CPU_TOKEN_BUDGET = 4_096
"""Tokens a batch on the CPU: larger ones fall out of the cache (measured, see FACTS)."""
LEAST_TOKENS_A_THREAD = 1_024
"""Fewer are not worth another thread."""
GPU_TOKEN_BUDGET = 131_072


def resolve_device(device: str) -> torch.device:
    """Return the torch device for ``auto`` (a GPU when there is one), ``cpu``, ``cuda``, ...

    Raises:
        ScoringError: The device does not exist on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise ScoringError(
            f"device {device!r} cannot be used ({error}); allowed: auto, cpu, or a device that "
            "torch sees, such as cuda:0"
        ) from error


@functools.cache
def _log_once(reason: str) -> None:
    """Warn of a fallback the first time that it is met."""
    LOGGER.warning("%s", reason)


class ModelRunner:
    """A model with its tokenizer on a device; not thread-safe.

    Args:
        model: The classifier, in evaluation mode.
        tokenizer: Its tokenizer.
        device: ``auto``, ``cpu``, ``cuda``, ...
        token_budget: Tokens a batch; none picks by device.
        precision: What the encoder computes in; none is fp32. ``mode`` tells what it came to on
            this machine.
    """

    def __init__(
        self,
        model: ChurnClassifier,
        tokenizer: Tokenizer,
        *,
        device: str = "auto",
        token_budget: int | None = None,
        precision: Precision | None = None,
    ) -> None:
        self.device = resolve_device(device)
        self.model = model.to(self.device).eval()
        self.tokenizer = tokenizer
        default = CPU_TOKEN_BUDGET if self.device.type == "cpu" else GPU_TOKEN_BUDGET
        self.token_budget = token_budget or default
        self._precision = precision or Precision()
        self.mode, self._encode = self._pick_encoder()

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        device: str = "auto",
        token_budget: int | None = None,
        precision: str = AUTO,
    ) -> ModelRunner:
        """Read model, tokenizer and precision from a bundle or model directory.

        Args:
            directory: With the files of model and tokenizer.
            device: ``auto``, ``cpu``, ``cuda``, ...
            token_budget: Tokens a batch; none picks by device.
            precision: ``auto``, which is what the bundle recorded, or ``fp32``.

        Raises:
            BundleIntegrityError: A file is missing or damaged.
            ScoringError: The device does not exist, or another ``precision``.
        """
        chosen = choose_precision(precision, directory)
        tokenizer = load_tokenizer(directory / TOKENIZER_DIR)
        model = ChurnClassifier.load(directory)
        return cls(model, tokenizer, device=device, token_budget=token_budget, precision=chosen)

    def _pick_encoder(self) -> tuple[str, Encode]:
        """Return the mode and the function that encodes texts, with the weights as they are now."""
        encoder, wanted = self.model.encoder, self._precision
        mode, reason = usable_mode(wanted.mode, self.device, fallback=wanted.fallback)
        if not self.model.reads_text:
            return FP32, self.model.encode_text
        if self.device.type == "cpu" and can_pack(encoder):
            self._log_fallback(reason)
            assert isinstance(encoder, PackedBert)
            return mode, PackedEngine(encoder, mode, wanted.activation_ranges)
        if self.device.type == "cuda" and mode == BF16:
            self._log_fallback(reason)
            half = copy.deepcopy(encoder).to(torch.bfloat16)
            return mode, lambda *arguments: half(*arguments).float()
        if mode != FP32:
            reason = f"{mode} is not known for this encoder; it runs in {FP32}"
        self._log_fallback(reason)
        return FP32, self.model.encode_text

    def _log_fallback(self, reason: str | None) -> None:
        """Warn if another mode runs than the bundle asks for."""
        if reason is not None:
            _log_once(reason)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Numeric inputs in model order."""
        return self.model.config.feature_names

    @property
    def feature_groups(self) -> tuple[str, ...]:
        """Names of the groups that effects are told for."""
        return self.model.group_names

    def tokens(self, behavior_texts: pa.Array, review_texts: pa.Array) -> TokenBatch:
        """Return the token ids of B texts; may be called while another thread runs the model."""
        if self.model.reads_text:
            return self.tokenizer.encode(behavior_texts, review_texts)
        return TokenBatch.without_text(len(behavior_texts), self.tokenizer.first_id)

    def run(
        self,
        behavior_texts: pa.Array,
        review_texts: pa.Array,
        features: FloatArray,
        *,
        with_effects: bool = True,
        tokens: TokenBatch | None = None,
    ) -> ModelOutput:
        """Compute logits and the effect of each feature group.

        Args:
            behavior_texts: (B,) strings, no nulls.
            review_texts: (B,) strings, no nulls; empty where there is no review.
            features: (B, F) float64 in the order of ``feature_names``, NaN where unknown.
            with_effects: Whether effects are wanted; without, ``group_effects`` is (B, 0).
            tokens: The texts' tokens, where they were made before.
        """
        if tokens is None:
            tokens = self.tokens(behavior_texts, review_texts)
        return self.run_tokens(tokens, features, with_effects=with_effects)

    def run_tokens(
        self, tokens: TokenBatch, features: FloatArray, *, with_effects: bool = True
    ) -> ModelOutput:
        """Compute the same from token ids."""
        finished: list[tuple[IntArray, torch.Tensor, torch.Tensor | None]] = []

        def run_batch(indices: IntArray) -> None:
            with torch.inference_mode():
                text_BD, codes_BFC = self._inputs(tokens.take(indices), features[indices])
                logits_B = self.model.fuse(text_BD, codes_BFC)
                effects_BG = None
                if with_effects:
                    effects_BG = self.model.group_effects(logits_B, text_BD, codes_BFC)
            finished.append((indices, logits_B, effects_BG))

        if self.device.type == "cpu":
            share = int(tokens.lengths.sum()) // torch.get_num_threads()
            budget = min(self.token_budget, max(share, LEAST_TOKENS_A_THREAD))
            # The longest first, so that threads end together.
            run_each(run_batch, plan_batches(tokens.lengths, budget)[::-1])
        else:
            self.token_budget = run_within_memory(
                tokens.lengths,
                self.token_budget,
                run_batch,
                free=torch.cuda.empty_cache,
                move_to_cpu=self._move_to_cpu,
            )
        # Fetched at the end: a GPU computes a batch while the next one is made ready.
        logits = np.empty(len(tokens))
        effects = np.empty((len(tokens), len(self.feature_groups) if with_effects else 0))
        for indices, logits_B, effects_BG in finished:
            logits[indices] = logits_B.double().cpu().numpy()
            if effects_BG is not None:
                effects[indices] = effects_BG.double().cpu().numpy()
        return ModelOutput(logits, effects)

    def logits(self, tokens: TokenBatch, features: FloatArray) -> FloatArray:
        """Return (B,) float64 logits alone, without effects."""
        return self.run_tokens(tokens, features, with_effects=False).logits

    def _inputs(
        self, tokens: TokenBatch, features: FloatArray
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return encoded texts (B, D) and coded features (B, F, C) of texts sorted by length."""
        text_BD = self._encode(
            self._to_device(tokens.ids), self._to_device(tokens.segments), tokens.lengths.tolist()
        )
        return text_BD, self.model.coding(self._to_device(features))

    def _to_device(self, values: npt.NDArray[Any]) -> torch.Tensor:
        """Return values as a tensor; the copy to a GPU does not wait for what runs there."""
        tensor = torch.from_numpy(values)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def _move_to_cpu(self) -> int:
        """Go on on the CPU, and return its token budget."""
        self.device = torch.device("cpu")
        self.model = self.model.to(self.device)
        self.mode, self._encode = self._pick_encoder()
        return CPU_TOKEN_BUDGET
