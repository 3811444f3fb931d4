"""Ways in PyTorch: the tutorial loop, the `transformers` pipeline, sorted batches, and ours.

Shape suffixes: B texts, T tokens of a text.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from churn_udf.model.precision import Precision, usable_mode
from churn_udf.model.quantization import calibrate_activations
from churn_udf.model.runner import ModelRunner
from churn_udf.tokenization import FIRST, PAD, SEPARATOR, SPECIAL_WORDS, UNKNOWN, TokenBatch
from scoring_ways.table import BASELINE, BF16, FP32, INT8, Absent, FloatArray, Way
from scoring_ways.workload import MAX_TOKENS, Workload

SLOW_EVERY = 4
"""The ways whose speed does not depend on the number of texts score every fourth."""
CALIBRATION_ROWS = 128
CALIBRATION_DRAW = 1_000_000

Batch = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""(B, T) token ids and (B, T) mask."""


def padded(tokens: TokenBatch, width: int) -> Batch:
    """Return ids and mask of all texts, (B, width) each."""
    is_token = np.arange(width) < tokens.lengths[:, None]
    ids = np.zeros((len(tokens), width), dtype=np.int64)
    ids[is_token] = tokens.ids
    return ids, is_token.astype(np.int64)


def sorted_batches(tokens: TokenBatch, size: int) -> tuple[npt.NDArray[np.int64], list[Batch]]:
    """Return the order by length, and batches in it, each padded to its longest text."""
    order = np.argsort(tokens.lengths, kind="stable")
    batches = []
    for start in range(0, len(order), size):
        part = tokens.take(order[start : start + size])
        batches.append(padded(part, int(part.lengths.max())))
    return order, batches


def in_order(order: npt.NDArray[np.int64], logits: list[npt.NDArray[Any]]) -> FloatArray:
    """Return the logits of sorted batches in the order of the texts."""
    restored = np.empty(len(order))
    restored[order] = np.concatenate([part.reshape(-1) for part in logits])
    return restored


def run_model(model: nn.Module, batches: list[Batch]) -> list[npt.NDArray[Any]]:
    """Return the logits of each batch."""
    with torch.inference_mode():
        return [
            model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
            .logits.float()
            .numpy()
            for ids, mask in batches
        ]


def reference_logits(workload: Workload, tokens: TokenBatch) -> FloatArray:
    """Return (B,) logits of the fp32 ``transformers`` model with eager attention."""
    order, batches = sorted_batches(tokens, 32)
    return in_order(order, run_model(workload.reference(), batches))


def torch_ways(workload: Workload) -> list[Way]:
    """Return the ways that users of torch and transformers take."""
    eager, sdpa = workload.reference("eager"), workload.reference("sdpa")

    def fixed_batches(tokens: TokenBatch) -> list[Batch]:
        ids, mask = padded(tokens, MAX_TOKENS)
        return [(ids[at : at + 16], mask[at : at + 16]) for at in range(0, len(ids), 16)]

    def loop(batches: list[Batch]) -> FloatArray:
        return np.concatenate(run_model(eager, batches)).reshape(-1).astype(np.float64)

    def by_length(
        prepared: tuple[npt.NDArray[np.int64], list[Batch]], model: nn.Module = sdpa
    ) -> FloatArray:
        return in_order(prepared[0], run_model(model, prepared[1]))

    def by_length_bf16(prepared: tuple[npt.NDArray[np.int64], list[Batch]]) -> FloatArray:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return by_length(prepared)

    return [
        Way(name=BASELINE, precision=FP32, prepare=fixed_batches, run=loop, every=SLOW_EVERY),
        pipeline_way(workload, sdpa),
        Way(
            name="torch, sorted by length, batch 32, SDPA",
            precision=FP32,
            prepare=lambda tokens: sorted_batches(tokens, 32),
            run=by_length,
        ),
        Way(
            name="torch, sorted by length, batch 32, SDPA, autocast",
            precision=BF16,
            prepare=lambda tokens: sorted_batches(tokens, 32),
            run=by_length_bf16,
        ),
    ]


def pipeline_way(workload: Workload, model: nn.Module) -> Way:
    """Return `pipeline("text-classification")` on raw texts; its tokenising is timed with it."""
    from transformers import pipeline

    classify = pipeline(
        "text-classification", model=model, tokenizer=word_tokenizer(workload), device="cpu"
    )

    def run(texts: list[str]) -> FloatArray:
        found = classify(texts, truncation=True, max_length=MAX_TOKENS)
        shares = np.array([item["score"] for item in found])
        return np.log(shares / (1.0 - shares))

    return Way(
        name="transformers pipeline (tokenising included)",
        precision=FP32,
        prepare=workload.texts,
        run=run,
        every=SLOW_EVERY,
    )


def word_tokenizer(workload: Workload) -> Any:
    """Return a fast ``transformers`` tokenizer of whole words with the workload's vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL_WORDS, *workload.words.tolist()]
    vocabulary = {word: number for number, word in enumerate(words)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(word, vocabulary[word]) for word in (FIRST, SEPARATOR)]
    core.post_processor = processors.TemplateProcessing(
        single=f"{FIRST} $A {SEPARATOR}", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token=UNKNOWN,
        pad_token=PAD,
        cls_token=FIRST,
        sep_token=SEPARATOR,
        model_max_length=MAX_TOKENS,
    )


def our_ways(workload: Workload) -> list[Way | Absent]:
    """Return this project's engine in each precision: sorting and packing are timed with it."""
    ranges = calibrate_activations(workload.classifier, calibration_tokens(workload))
    ways: list[Way | Absent] = []
    for mode in (FP32, BF16, INT8):
        name = f"ours, packed, {mode}"
        _, reason = usable_mode(mode, torch.device("cpu"))
        if reason is not None:
            ways.append(Absent(name=name, precision=mode, reason=reason, is_ours=True))
            continue
        runner = ModelRunner(
            copy.deepcopy(workload.classifier),
            workload.tokenizer,
            device="cpu",
            precision=Precision(mode=mode, activation_ranges=ranges),
        )

        def run(tokens: TokenBatch, runner: ModelRunner = runner) -> FloatArray:
            return runner.logits(tokens, np.zeros((len(tokens), 1)))

        ways.append(
            Way(name=name, precision=mode, prepare=lambda tokens: tokens, run=run, is_ours=True)
        )
    return ways


def calibration_tokens(workload: Workload) -> TokenBatch:
    """Return the texts that int8 is calibrated on, ours and others' alike."""
    tokens = workload.draw(CALIBRATION_DRAW)
    return tokens.take(np.arange(min(CALIBRATION_ROWS, len(tokens))))
