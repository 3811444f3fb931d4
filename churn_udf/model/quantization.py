"""Calibration for int8: which values reach the dense layers of an encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from churn_udf.batching import plan_batches
from churn_udf.model.classifier import ChurnClassifier
from churn_udf.model.runner import ModelRunner
from churn_udf.tokenization import TokenBatch

CALIBRATION_TOKEN_BUDGET = 4_096


def calibrate_activations(
    model: ChurnClassifier | ModelRunner, tokens: TokenBatch
) -> Mapping[str, tuple[float, float]]:
    """Return the smallest and largest input of every dense layer that is called, in fp32.

    Args:
        model: The classifier, in evaluation mode, or the ``ModelRunner`` that holds it.
        tokens: Texts like those to be scored; some hundreds are enough.

    Returns:
        ``Precision.activation_ranges``.

    Raises:
        ValueError: No texts.
    """
    if not len(tokens):
        raise ValueError("calibration got 0 texts; allowed: at least 1, some hundreds are better")
    encoder = (model.model if isinstance(model, ModelRunner) else model).encoder
    device = next(encoder.parameters()).device
    ranges: dict[str, tuple[float, float]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            low, high = (float(end) for end in inputs[0].aminmax())
            before = ranges.get(name, (np.inf, -np.inf))
            ranges[name] = (min(low, before[0]), max(high, before[1]))

        return hook

    dense = [(n, m) for n, m in encoder.named_modules() if isinstance(m, nn.Linear)]
    handles = [module.register_forward_pre_hook(watch(name)) for name, module in dense]
    try:
        with torch.inference_mode():
            for indices in plan_batches(tokens.lengths, CALIBRATION_TOKEN_BUDGET):
                chosen = tokens.take(indices)
                encoder(
                    torch.from_numpy(chosen.ids).to(device),
                    torch.from_numpy(chosen.segments).to(device),
                    chosen.lengths.tolist(),
                )
    finally:
        for handle in handles:
            handle.remove()
    return ranges
