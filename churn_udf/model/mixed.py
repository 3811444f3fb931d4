"""Dense layers whose three matrix products, one forward and two backward, can run in bf16.

torch's autocast rounds everything between the products too; on the CPU that makes attention's
gradient eight times as slow, and every new number of rows compiles new products. Here weights,
activations and sums stay fp32, operands alone are rounded, and rows are filled up to a multiple
of 32 with zeros, so that few shapes are ever seen.

Shape suffixes: N rows, R rows filled up, I inputs, O outputs.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

ROW_MULTIPLE = 32
MIN_ROWS = 64
"""Fewer rows stay fp32: rounding the weight would cost more than the product gains."""
_in_bf16 = contextvars.ContextVar("in_bf16", default=False)


@contextlib.contextmanager
def bf16_products(is_enabled: bool = True) -> Iterator[None]:
    """Run products of ``dense`` and ``Dense`` over many rows in bf16, their gradients' too."""
    token = _in_bf16.set(is_enabled)
    try:
        yield
    finally:
        _in_bf16.reset(token)


def dense(
    inputs: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None = None
) -> torch.Tensor:
    """Return ``inputs @ weight.T + bias``, in fp32 whatever the products run in.

    Args:
        inputs: (N, I) float32; fewer than ``MIN_ROWS`` are never rounded.
        weight_OI: (O, I) float32.
        bias_O: (O,) float32, or none.
    """
    if not _in_bf16.get() or len(inputs) < MIN_ROWS:
        return functional.linear(inputs, weight_OI, bias_O)
    outputs: torch.Tensor = _Bf16Dense.apply(inputs, weight_OI, bias_O)  # type: ignore[no-untyped-call]
    return outputs


class Dense(nn.Linear):
    """``nn.Linear`` over a matrix of rows that follows ``bf16_products``."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return (N, O) outputs of (N, I) inputs."""
        return dense(input, self.weight, self.bias)


class _Bf16Dense(torch.autograd.Function):
    """Rows times a transposed matrix and a bias, in bf16; fp32 in and out."""

    @staticmethod
    def forward(
        context: Any, inputs_NI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None
    ) -> torch.Tensor:
        """Return (N, O) outputs."""
        inputs_RI, rounded_OI = _rounded(inputs_NI), weight_OI.bfloat16()
        context.save_for_backward(inputs_RI, rounded_OI)
        bias = None if bias_O is None else bias_O.bfloat16()
        return functional.linear(inputs_RI, rounded_OI, bias)[: len(inputs_NI)].float()

    @staticmethod
    def backward(
        context: Any, *gradients: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Return the gradients of inputs, weight and bias."""
        inputs_RI, rounded_OI = context.saved_tensors
        needs_inputs, needs_weight, needs_bias = context.needs_input_grad
        gradient_RO = _rounded(gradients[0])
        inputs = weight = bias = None
        if needs_inputs:
            inputs = (gradient_RO @ rounded_OI)[: len(gradients[0])].float()
        if needs_weight:
            weight = (gradient_RO.t() @ inputs_RI).float()
        if needs_bias:
            bias = gradients[0].sum(0)
        return inputs, weight, bias


def _rounded(values_NI: torch.Tensor) -> torch.Tensor:
    """Return (R, I) bf16 values, rows of zeros added."""
    num_rows = len(values_NI)
    filled = -(-num_rows // ROW_MULTIPLE) * ROW_MULTIPLE
    if filled == num_rows:
        return values_NI.bfloat16()
    rounded_RI = values_NI.new_empty((filled, values_NI.shape[1]), dtype=torch.bfloat16)
    rounded_RI[:num_rows] = values_NI
    rounded_RI[num_rows:] = 0
    return rounded_RI
