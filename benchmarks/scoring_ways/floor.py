"""The floor: the least time that arithmetic alone needs, at the matrix rate of this run.

The FLOPs counted are those of the tokens there are, no padding, of an encoder that is read at
the first token: in the last layer, keys and values of all tokens and everything else for the
first token alone. The head is left out. A way that looks parts up instead of computing them can
need less, so a share above 1 is possible.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from scoring_ways.workload import EncoderShape

GEMM_TOKENS = 4_096


def count_flops(lengths: npt.NDArray[np.int64], shape: EncoderShape) -> int:
    """Return multiplications and additions (two of each product) that scoring needs.

    Args:
        lengths: (B,) tokens of each text.
        shape: The encoder; its feed-forward layers are four times as wide as it is.
    """
    hidden, texts = shape.hidden_size, len(lengths)
    tokens, pairs = int(lengths.sum()), int((lengths**2).sum())
    matrix = 2 * hidden * hidden  # of one token through one hidden x hidden matrix
    whole_layer = tokens * 12 * matrix + pairs * 4 * hidden
    last_layer = tokens * 2 * matrix + texts * 10 * matrix + tokens * 4 * hidden
    return (shape.num_layers - 1) * whole_layer + last_layer


def gemm_rates(shape: EncoderShape, repetitions: int = 8) -> dict[str, float]:
    """Return FLOP a CPU second of the encoder's own matrices, by precision.

    Each matrix of a layer is multiplied with ``GEMM_TOKENS`` tokens by every kernel that torch
    has for it; the fastest repetition of the fastest kernel counts.
    """
    hidden, wide = shape.hidden_size, 4 * shape.hidden_size
    matrices = {(hidden, hidden): 4, (hidden, wide): 1, (wide, hidden): 1}
    rates = {}
    for precision in ("fp32", "bf16", "int8"):
        flops = seconds = 0.0
        for (inner, outer), count in matrices.items():
            kernels = _kernels(precision, inner, outer)
            flops += count * 2 * GEMM_TOKENS * inner * outer
            seconds += count * min(_best_seconds(kernel, repetitions) for kernel in kernels)
        rates[precision] = flops / seconds
    return rates


def _kernels(precision: str, inner: int, outer: int) -> list[Callable[[], torch.Tensor]]:
    """Return calls that each multiply (tokens, inner) by (inner, outer)."""
    if precision == "int8":
        left = torch.randint(-9, 9, (GEMM_TOKENS, inner), dtype=torch.int8)
        right = torch.randint(-9, 9, (outer, inner), dtype=torch.int8)
        return [lambda: torch._int_mm(left, right.t())]
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    rows, weight = torch.randn(GEMM_TOKENS, inner).to(dtype), torch.randn(outer, inner).to(dtype)
    result = torch.empty(GEMM_TOKENS, outer, dtype=dtype)
    kernels: list[Callable[[], torch.Tensor]] = [lambda: torch.mm(rows, weight.t(), out=result)]
    if torch.backends.mkldnn.is_available():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, GEMM_TOKENS)
        kernels.append(
            lambda: torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], "")
        )
    return kernels


def _best_seconds(call: Callable[[], torch.Tensor], repetitions: int) -> float:
    """Return the fewest CPU seconds of a call."""
    best = float("inf")
    with torch.inference_mode():
        call()
        for _ in range(repetitions):
            started = time.process_time()
            call()
            best = min(best, time.process_time() - started)
    return best
