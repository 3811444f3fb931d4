"""Dense layers of the inference engine: the same maths in fp32, bf16 and int8.

All take and return float32, so that residuals, layer norms and softmax stay exact. On x86 they
call oneDNN as torch ships it, which is faster than torch's own route and can fuse what follows;
elsewhere fp32 is plain torch.

Int8 is static: one scale for each input of a dense layer, from calibration, and one for each
row of its weights. Integer sums are exact, so no row depends on its neighbours.

Shape suffixes: N rows, I inputs, O outputs.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional

from churn_udf.errors import BundleIntegrityError
from churn_udf.model.precision import BF16, INT8

HAS_ONEDNN = torch._C._has_mkldnn and platform.machine() in {"x86_64", "AMD64"}
TOP_UINT8, TOP_INT8 = 255, 127


class Dense(Protocol):
    """A dense layer, with what is added to its output."""

    def __call__(self, values_NI: torch.Tensor, residual_NO: torch.Tensor | None) -> torch.Tensor:
        """Return ``values @ weight.T + bias + residual``, (N, O) float32."""


class FeedForward(Protocol):
    """Two dense layers around a GELU, with the residual added."""

    def __call__(self, values_NI: torch.Tensor) -> torch.Tensor:
        """Return ``down(gelu(up(values))) + values``, (N, I) float32."""


class _Fp32Dense:
    """Float32 throughout."""

    def __init__(self, layer: nn.Linear) -> None:
        self._weight, self._bias = layer.weight.detach(), layer.bias.detach()

    def __call__(self, values_NI: torch.Tensor, residual_NO: torch.Tensor | None) -> torch.Tensor:
        if not HAS_ONEDNN:
            plain = functional.linear(values_NI, self._weight, self._bias)
            return plain if residual_NO is None else plain + residual_NO
        if residual_NO is None:
            return self.pointwise(values_NI, "none")
        added: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            values_NI, residual_NO, self._weight, self._bias, "add"
        )
        return added

    def pointwise(self, values_NI: torch.Tensor, name: str) -> torch.Tensor:
        """Return the layer followed by ``none`` or ``gelu``."""
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            values_NI, self._weight, self._bias, name, [], "none" if name == "gelu" else ""
        )
        return result


class _Fp32FeedForward:
    """Float32 throughout."""

    def __init__(self, up: nn.Linear, down: nn.Linear) -> None:
        self._up, self._down = _Fp32Dense(up), _Fp32Dense(down)

    def __call__(self, values_NI: torch.Tensor) -> torch.Tensor:
        if HAS_ONEDNN:
            return self._down(self._up.pointwise(values_NI, "gelu"), values_NI)
        return self._down(functional.gelu(self._up(values_NI, None)), values_NI)


class _Bf16Dense:
    """Weights and products in bf16, sums in float32."""

    def __init__(self, layer: nn.Linear) -> None:
        self._bias = layer.bias.detach().bfloat16()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().bfloat16())

    def __call__(self, values_NI: torch.Tensor, residual_NO: torch.Tensor | None) -> torch.Tensor:
        result = self.pointwise(values_NI.bfloat16(), "none")
        return result.float() if residual_NO is None else residual_NO + result

    def pointwise(self, values_NI: torch.Tensor, name: str) -> torch.Tensor:
        """Return the layer followed by ``none`` or ``gelu``; bf16 in, bf16 out."""
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            values_NI, self._weight, self._bias, name, [], "none" if name == "gelu" else ""
        )
        return result


class _Bf16FeedForward:
    """Both layers in bf16, with the wide values between them in bf16 too."""

    def __init__(self, up: nn.Linear, down: nn.Linear) -> None:
        self._up, self._down = _Bf16Dense(up), _Bf16Dense(down)

    def __call__(self, values_NI: torch.Tensor) -> torch.Tensor:
        wide = self._up.pointwise(values_NI.bfloat16(), "gelu")
        return values_NI + self._down.pointwise(wide, "none")


class _Scale:
    """How inputs become unsigned bytes: ``byte = round(value / step) + zero``."""

    def __init__(self, low: float, high: float) -> None:
        low, high = min(low, 0.0), max(high, 0.0)
        self.step = max((high - low) / TOP_UINT8, torch.finfo(torch.float32).tiny)
        self.zero = round(-low / self.step)

    def quantize(self, values: torch.Tensor) -> torch.Tensor:
        """Return uint8; values outside the range go to its ends."""
        # c - alpha * x with a negative alpha: one pass. Half is added, as conversion truncates.
        scaled = torch.rsub(values, self.zero + 0.5, alpha=-1.0 / self.step)
        return scaled.clamp_(0.0, TOP_UINT8).to(torch.uint8)


class _Int8Dense:
    """Bytes times signed bytes, summed in int32."""

    def __init__(self, layer: nn.Linear, scale: _Scale) -> None:
        weight_OI = layer.weight.detach()
        steps_O = weight_OI.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / TOP_INT8
        bytes_OI = (weight_OI / steps_O[:, None]).round().to(torch.int8)
        self.scale = scale
        self._steps_O, self._bias = steps_O, layer.bias.detach()
        self._zeros_O = torch.zeros(len(steps_O), dtype=torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(bytes_OI, None)

    def __call__(self, values_NI: torch.Tensor, residual_NO: torch.Tensor | None) -> torch.Tensor:
        return self.from_bytes(self.scale.quantize(values_NI), residual_NO)

    def from_bytes(self, bytes_NI: torch.Tensor, residual_NO: torch.Tensor | None) -> torch.Tensor:
        """Return float32 from inputs that are bytes already."""
        given = (bytes_NI, self.scale.step, self.scale.zero)
        weight = (self._weight, self._steps_O, self._zeros_O)
        to_float = (self._bias, 1.0, 0, torch.float32)
        result: torch.Tensor
        if residual_NO is None:
            result = torch.ops.onednn.qlinear_pointwise(*given, *weight, *to_float, "none", [], "")
        else:
            result = torch.ops.onednn.qlinear_pointwise.binary(
                *given, *weight, residual_NO, *to_float, 1.0, 0, "add", 1.0, "none", [], ""
            )
        return result

    def gelu_bytes(self, values_NI: torch.Tensor, scale: _Scale) -> torch.Tensor:
        """Return the GELU of the layer as bytes of another scale."""
        result: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            *(self.scale.quantize(values_NI), self.scale.step, self.scale.zero),
            *(self._weight, self._steps_O, self._zeros_O, self._bias),
            *(scale.step, scale.zero, torch.uint8, "gelu", [], "none"),
        )
        return result


class _Int8FeedForward:
    """Both layers in int8, with the wide values between them as bytes."""

    def __init__(self, up: _Int8Dense, down: _Int8Dense) -> None:
        self._up, self._down = up, down

    def __call__(self, values_NI: torch.Tensor) -> torch.Tensor:
        wide = self._up.gelu_bytes(values_NI, self._down.scale)
        return self._down.from_bytes(wide, values_NI)


class DenseFactory:
    """Makes the dense layers of one mode.

    Args:
        mode: One of ``PRECISIONS``.
        activation_ranges: See ``Precision``; read by int8 alone.
    """

    def __init__(self, mode: str, activation_ranges: Mapping[str, tuple[float, float]]) -> None:
        self._mode = mode
        self._ranges = activation_ranges

    def dense(self, name: str, layer: nn.Linear) -> Dense:
        """Return a dense layer.

        Args:
            name: Its name in the encoder, for its range.
            layer: Weights and bias.

        Raises:
            BundleIntegrityError: int8, and the layer has no range.
        """
        if self._mode == INT8:
            return self._int8(name, layer)
        return _Bf16Dense(layer) if self._mode == BF16 else _Fp32Dense(layer)

    def feed_forward(
        self, up_name: str, up: nn.Linear, down_name: str, down: nn.Linear
    ) -> FeedForward:
        """Return two dense layers with a GELU between; arguments as for ``dense``.

        Raises:
            BundleIntegrityError: int8, and a layer has no range.
        """
        if self._mode == INT8:
            return _Int8FeedForward(self._int8(up_name, up), self._int8(down_name, down))
        return _Bf16FeedForward(up, down) if self._mode == BF16 else _Fp32FeedForward(up, down)

    def _int8(self, name: str, layer: nn.Linear) -> _Int8Dense:
        """Return a dense layer with the scale that calibration found."""
        if name not in self._ranges:
            raise BundleIntegrityError(
                f"precision int8: no activation range for {name}, only for "
                f"{len(self._ranges)} other layers; package the model again with "
                "`churn-train package`"
            )
        return _Int8Dense(layer, _Scale(*self._ranges[name]))
